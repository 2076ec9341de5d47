"""What a service is spared, by a clock that only the test moves; calls are real."""

from __future__ import annotations

import logging
import math

import pytest

from jobs.downstream.calls import Delayed, FailedCall, RefusedCall
from jobs.downstream.guard import MAX_CONNECTIONS, WAIT_S, Guard
from jobs.execution.interruption import CANCEL, Interrupted, Interruption
from jobs.types.spec import NEVER
from pipeline.delivery.breaker import CLOSED, HALF_OPEN, OPEN, BreakerSettings
from pipeline.runtime.clock import FakeClock
from tests.jobs.downstream.stand import Aside, spec

RATIO = BreakerSettings(consecutive=NEVER, failure_ratio=0.6, min_calls=3, window_s=60, open_s=10)
IN_A_ROW = BreakerSettings(consecutive=4, min_calls=NEVER, open_s=10)
FAILS = "/faults/status?code=503"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def caller(make_caller, clock):
    return make_caller(clock=clock)


def fail(caller, service, path=FAILS) -> None:
    with pytest.raises(FailedCall):
        caller.call(service, path)


# --- breaker ---------------------------------------------------------------------------------


def test_sixty_percent_of_at_least_three_calls_open_it_and_a_probe_closes_it(
    caller, toy, clock, caplog
):
    service = spec(toy.url, breaker=RATIO)
    caller.call(service)
    fail(caller, service)
    assert caller.state()["breaker"] == CLOSED  # one of two
    with caplog.at_level(logging.WARNING):
        fail(caller, service)
    state = caller.state()
    assert state["breaker"] == OPEN
    assert state["cause"] == "toy answered 503"
    assert state["retry_in_s"] == 10
    assert state["trips"] == 1
    assert "the breaker of a downstream service opened" in caplog.text

    calls = toy.journal.counts()["calls"]
    with pytest.raises(Delayed) as raised:
        caller.call(service)
    assert raised.value.delay_s == 10
    assert raised.value.why == "toy is not called now: its breaker is open: toy answered 503"
    assert toy.journal.counts()["calls"] == calls
    assert caller.state()["delayed"] == 1

    clock.advance(10)
    assert caller.call(service).status == 200
    assert caller.state()["breaker"] == CLOSED


def test_so_many_in_a_row_open_it(caller, toy):
    service = spec(toy.url, breaker=IN_A_ROW)
    for _ in range(3):
        fail(caller, service)
    caller.call(service)
    for _ in range(3):
        fail(caller, service)
    assert caller.state()["breaker"] == CLOSED
    fail(caller, service)
    assert caller.state()["breaker"] == OPEN


def test_failures_older_than_the_window_count_no_more(caller, toy, clock):
    service = spec(toy.url, breaker=RATIO)
    fail(caller, service)
    fail(caller, service)
    clock.advance(62)
    caller.call(service)
    caller.call(service)
    fail(caller, service)
    assert caller.state()["breaker"] == CLOSED


def test_a_probe_that_fails_opens_it_again(caller, toy, clock):
    service = spec(toy.url, breaker=RATIO)
    for _ in range(3):
        fail(caller, service)
    clock.advance(10)
    fail(caller, service)
    assert caller.state()["trips"] == 2
    with pytest.raises(Delayed):
        caller.call(service)


def test_while_one_probe_is_out_the_others_are_delayed_and_a_cut_probe_makes_room(
    caller, toy, clock
):
    service = spec(toy.url, breaker=RATIO)
    for _ in range(3):
        fail(caller, service)
    clock.advance(10)
    word = caller.interruption()
    probe = Aside(lambda: caller.call(service, "/faults/hang", interruption=word))
    while toy.journal.counts()["calls"] < 4:
        assert not probe.is_over
    with pytest.raises(Delayed, match="one call finds out"):
        caller.call(service)
    assert caller.state()["breaker"] == HALF_OPEN
    word.interrupt(CANCEL)
    assert isinstance(probe.outcome(), Interrupted)
    assert caller.call(service).status == 200
    assert caller.state()["breaker"] == CLOSED


def test_refused_calls_are_no_failures_of_the_service(caller, toy):
    service = spec(toy.url, breaker=RATIO)
    for _ in range(10):
        with pytest.raises(RefusedCall):
            caller.call(service, "/faults/status?code=404")
    assert caller.state()["breaker"] == CLOSED
    assert caller.state()["failures"] == 0


def test_an_open_breaker_waits_as_long_as_the_service_asked_for(caller, toy, clock):
    service = spec(toy.url, breaker=RATIO)
    for _ in range(3):
        fail(caller, service, "/faults/status?code=429&retry_after=120")
    assert caller.state()["retry_in_s"] == 120
    clock.advance(119)
    with pytest.raises(Delayed) as raised:
        caller.call(service)
    assert raised.value.delay_s == pytest.approx(1)


def test_turned_off_it_never_opens(caller, toy):
    service = spec(toy.url)
    for _ in range(20):
        fail(caller, service)
    assert caller.state()["breaker"] == CLOSED


def test_a_service_that_goes_down_and_comes_back(caller, toy, clock):
    """Down in earnest: connections are reset."""
    service = spec(toy.url, breaker=RATIO)
    toy.go_down(3600)
    for _ in range(3):
        fail(caller, service, "/")
    assert "broke the call off" in caller.state()["cause"]
    toy.come_up()
    with pytest.raises(Delayed):
        caller.call(service)
    clock.advance(10)
    assert caller.call(service).status == 200


def test_another_address_starts_afresh_and_other_numbers_do_not(make_caller, make_toy, clock):
    toy, other = make_toy(), make_toy()
    known = {1: spec(toy.url, breaker=RATIO)}
    caller = make_caller(clock=clock, known=lambda: known)
    for _ in range(3):
        fail(caller, known[1])
    known[1] = spec(toy.url, breaker=RATIO, timeout_s=5.0)
    with pytest.raises(Delayed):
        caller.call(known[1])
    known[1] = spec(other.url, breaker=RATIO)
    assert caller.call(known[1]).status == 200


# --- rate ------------------------------------------------------------------------------------


def guard_of(clock, *, runners: int = 1, rank: int = 0, **limits) -> Guard:
    service = spec("http://a", **limits)
    guard = Guard(service, clock=clock)
    guard.configure(service, runners=runners, rank=rank)
    return guard


def enter(guard, clock, *, left_s=math.inf, word=None):
    return guard.enter(left_s=left_s, interruption=word or Interruption(clock=clock))


def test_runners_share_a_rate(clock):
    guard = guard_of(clock, rate_per_s=10.0, burst=20, runners=5)
    for _ in range(4):
        guard.succeeded(enter(guard, clock))
    with pytest.raises(Delayed) as raised:
        enter(guard, clock, left_s=0.1)
    assert raised.value.delay_s == pytest.approx(0.5)
    clock.advance(0.5)
    enter(guard, clock)


def test_a_token_that_comes_soon_is_waited_for(clock):
    guard = guard_of(clock, rate_per_s=2.0, burst=1)
    enter(guard, clock)
    second = Aside(lambda: enter(guard, clock))
    clock.await_waiting(1)
    clock.advance(0.5)
    assert not isinstance(second.outcome(), Exception)
    assert guard.state()["in_flight"] == 2


def test_one_that_comes_late_is_not_waited_for(clock):
    guard = guard_of(clock, rate_per_s=0.1, burst=1)
    enter(guard, clock)
    with pytest.raises(Delayed) as raised:
        enter(guard, clock)
    assert raised.value.delay_s == pytest.approx(10)


def test_who_is_refused_took_no_token(clock):
    guard = guard_of(clock, rate_per_s=1.0, burst=1, max_concurrent=1)
    first = enter(guard, clock)
    clock.advance(1)
    crowded = Aside(lambda: enter(guard, clock))
    clock.await_waiting(1)
    clock.advance(WAIT_S)
    assert isinstance(crowded.outcome(), Delayed)
    guard.succeeded(first)
    enter(guard, clock)


# --- places ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "places"),
    [
        (6, [6]),
        (6, [3, 3]),
        (6, [2, 2, 1, 1]),
        (3, [2, 1]),
        (1, [1, 0, 0, 0]),
        (1000, [MAX_CONNECTIONS]),
        (None, [MAX_CONNECTIONS, MAX_CONNECTIONS]),
    ],
    ids=str,
)
def test_runners_share_the_calls_at_a_time(clock, limit, places):
    for rank, many in enumerate(places):
        guard = guard_of(clock, max_concurrent=limit, runners=len(places), rank=rank)
        for _ in range(many):
            enter(guard, clock)
        with pytest.raises(Delayed, match="at a time"):
            enter(guard, clock, left_s=0)


def test_a_runner_without_a_place_keeps_no_worker_waiting(clock):
    guard = guard_of(clock, max_concurrent=1, runners=2, rank=1)
    with pytest.raises(Delayed, match="other runners have all the places") as raised:
        enter(guard, clock)
    assert raised.value.delay_s == 1


def test_a_place_that_becomes_free_goes_to_who_waits(clock):
    guard = guard_of(clock, max_concurrent=1)
    first = enter(guard, clock)
    second = Aside(lambda: enter(guard, clock))
    clock.await_waiting(1)
    guard.failed(first, "it failed")
    assert not isinstance(second.outcome(), Exception)
    assert guard.state()["failures"] == 1


def test_who_waits_hears_a_word(clock):
    guard = guard_of(clock, max_concurrent=1)
    enter(guard, clock)
    word = Interruption(clock=clock)
    second = Aside(lambda: enter(guard, clock, word=word))
    clock.await_waiting(1)
    word.interrupt(CANCEL)
    assert isinstance(second.outcome(), Interrupted)
    assert guard.state()["waiting"] == 0


def test_a_breaker_that_opens_meanwhile_sends_those_who_wait_away(clock):
    guard = guard_of(clock, max_concurrent=1, breaker=BreakerSettings(consecutive=1, open_s=7))
    first = enter(guard, clock)
    second = Aside(lambda: enter(guard, clock))
    clock.await_waiting(1)
    guard.failed(first, "it failed")
    outcome = second.outcome()
    assert isinstance(outcome, Delayed)
    assert outcome.delay_s == 7


def test_an_end_counts_once(clock):
    guard = guard_of(clock)
    entry = enter(guard, clock)
    guard.failed(entry, "it failed")
    guard.ignored(entry)
    guard.succeeded(entry)
    state = guard.state()
    assert (state["in_flight"], state["failures"], state["calls"]) == (0, 1, 1)


def test_more_places_let_those_in_who_wait(clock):
    guard = guard_of(clock, max_concurrent=1)
    enter(guard, clock)
    second = Aside(lambda: enter(guard, clock))
    clock.await_waiting(1)
    guard.configure(spec("http://a", max_concurrent=2), runners=1)
    assert not isinstance(second.outcome(), Exception)
