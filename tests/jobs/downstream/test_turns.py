"""Who finds out whether a service is well again, and how long the others stay away."""

from __future__ import annotations

import heapq
import math
from collections import Counter

import pytest

from jobs.downstream.calls import Delayed
from jobs.downstream.guard import Entry, Guard
from jobs.downstream.turns import HELD_S, LATE_S
from jobs.execution.interruption import Interruption
from jobs.types.spec import NEVER
from pipeline.delivery.breaker import CLOSED, BreakerSettings
from pipeline.runtime.clock import FakeClock
from tests.jobs.downstream.stand import spec

OPEN_S = 10.0
TIMEOUT_S = 10.0
SLOW, GOOD = "step hang of slow", "step check of good"


class Service:
    """A guard, and a word for what is asked of it."""

    def __init__(self, clock: FakeClock, *, open_s: float = OPEN_S, consecutive: int = 1) -> None:
        self.clock = clock
        service = spec(
            "http://a",
            breaker=BreakerSettings(consecutive=consecutive, min_calls=NEVER, open_s=open_s),
        )
        self.guard = Guard(service, clock=clock)
        self.guard.configure(service, runners=1)

    def ask(self, asker: str) -> Entry | float:
        """The right to call, or when to come again."""
        try:
            return self.guard.enter(
                left_s=math.inf,
                interruption=Interruption(clock=self.clock),
                asker=asker,
                timeout_s=TIMEOUT_S,
            )
        except Delayed as delayed:
            return delayed.delay_s

    def let_in(self, asker: str) -> Entry:
        entry = self.ask(asker)
        assert isinstance(entry, Entry), f"{asker} comes again in {entry} s"
        return entry

    def kept_out(self, asker: str) -> float:
        delay_s = self.ask(asker)
        assert isinstance(delay_s, float), f"{asker} was let in"
        return delay_s

    def fail(self, asker: str) -> None:
        self.guard.failed(self.let_in(asker), "it hung")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def service(clock: FakeClock) -> Service:
    return Service(clock)


def test_a_step_that_hangs_does_not_keep_the_others_away(service: Service, clock: FakeClock):
    """Its jobs are many and come first each time; the probe is the other's all the same."""
    service.fail(SLOW)
    assert service.kept_out(SLOW) == OPEN_S
    assert service.kept_out(GOOD) == OPEN_S
    clock.advance(OPEN_S)
    for _ in range(6):
        assert service.kept_out(SLOW) >= 1.0
    service.guard.succeeded(service.let_in(GOOD))
    assert service.guard.state()["breaker"] == CLOSED
    service.let_in(SLOW)


def test_who_does_not_come_is_not_waited_for(service: Service, clock: FakeClock):
    service.fail(SLOW)
    service.kept_out(GOOD)
    clock.advance(OPEN_S * 1.25)
    service.kept_out(SLOW)
    clock.advance(LATE_S)
    service.let_in(SLOW)


def test_where_both_fail_they_take_turns(service: Service, clock: FakeClock):
    service.fail(SLOW)
    for turn in (GOOD, SLOW, GOOD, SLOW):
        other = SLOW if turn == GOOD else GOOD
        service.kept_out(turn)
        clock.advance(OPEN_S)
        service.kept_out(other)
        service.fail(turn)
        assert service.guard.state()["opened_by"] == turn


def test_while_a_call_finds_out_the_others_look_seldom(service: Service, clock: FakeClock):
    service.fail(SLOW)
    clock.advance(OPEN_S)
    service.let_in(SLOW)
    looks = 0
    left_s = TIMEOUT_S
    while left_s > 0:
        delay_s = service.kept_out(GOOD)
        clock.advance(delay_s)
        left_s -= delay_s
        looks += 1
    assert looks <= 6


def test_the_longer_it_lasts_the_seldomer_those_look_who_are_many(clock: FakeClock):
    """An hour's outage, and 60 jobs that each come when they were told to."""
    service = Service(clock, open_s=2.0)
    service.fail(GOOD)
    due = [(clock.monotonic(), number) for number in range(60)]
    end = clock.monotonic() + 3600
    times: Counter[int] = Counter()
    calls, longest_s = 0, 0.0
    while due[0][0] < end:
        at, number = heapq.heappop(due)
        clock.advance(max(0.0, at - clock.monotonic()))
        asked = service.ask(GOOD)
        if isinstance(asked, Entry):
            calls += 1
            service.guard.failed(asked, "still away")
            asked = HELD_S  # its own pause between attempts
        else:
            times[number] += 1
        longest_s = max(longest_s, asked)
        heapq.heappush(due, (clock.monotonic() + asked, number))
    assert calls > 1000  # whether it is well again is found out as promptly as ever
    assert sum(times.values()) / 60 < 150
    assert 30 < longest_s <= 2 + HELD_S


def test_after_the_first_time_all_come_back_at_once(service: Service):
    service.fail(GOOD)
    assert {service.kept_out(GOOD) for _ in range(50)} == {OPEN_S}


def test_what_opened_it_is_told_until_it_is_closed(clock: FakeClock):
    settings = BreakerSettings(
        consecutive=NEVER, failure_ratio=0.6, min_calls=3, window_s=60, open_s=OPEN_S
    )
    service = Service(clock)
    service.guard.configure(spec("http://a", breaker=settings), runners=1)
    service.guard.succeeded(service.let_in(GOOD))
    late = service.let_in(GOOD)
    service.fail(SLOW)
    service.fail(SLOW)
    service.guard.succeeded(late)  # it was in flight, and counts no more
    state = service.guard.state()
    assert state["opened_by"] == SLOW
    assert (state["trip_calls"], state["trip_failures"]) == (3, 2)
    assert state["trip_rule"] == "60% of at least 3 calls in 60 s"
    clock.advance(OPEN_S)
    service.fail(GOOD)
    state = service.guard.state()
    assert (state["opened_by"], state["trip_calls"]) == (GOOD, 3)
    clock.advance(OPEN_S)
    service.guard.succeeded(service.let_in(GOOD))
    state = service.guard.state()
    assert [state[key] for key in ("opened_by", "trip_calls", "trip_rule")] == ["", 0, ""]


def test_so_many_in_a_row_are_told_too(clock: FakeClock):
    service = Service(clock, consecutive=4)
    for _ in range(4):
        service.fail(SLOW)
        clock.advance(30)
    state = service.guard.state()
    assert (state["trip_calls"], state["trip_failures"]) == (4, 4)
    assert state["trip_rule"] == "4 calls in a row"
