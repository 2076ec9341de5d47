"""Those that were turned away come back one after the other, not all at once."""

from __future__ import annotations

import threading
import tracemalloc

import pytest

from pipeline.errors import Saturated
from pipeline.intake.comebacks import AHEAD_MAX_S, Comebacks
from pipeline.runtime.clock import FakeClock
from tests.pipeline.test_admission import admission, retry_after


def when(told: Comebacks, records: int, *, now: float) -> float:
    """What one is told that alone would come back after a second; a hundred records leave in it."""
    seconds, _ = told.tell(records, after_s=1.0, rate=100.0, now=now)
    return seconds


def test_each_comes_behind_those_that_were_told_before_it() -> None:
    told = Comebacks()
    times = [when(told, 50, now=0.0) for _ in range(4)]
    assert times == [1.0, 1.5, 2.0, 2.5]


def test_who_was_due_is_not_waited_for() -> None:
    told = Comebacks()
    for _ in range(4):
        when(told, 50, now=0.0)
    assert when(told, 50, now=1.9) == 1.0 + 1.0, "two are still to come"
    assert when(told, 50, now=60.0) == 1.0


def test_who_waits_after_all_is_not_waited_for() -> None:
    told = Comebacks()
    when(told, 50, now=0.0)
    _, turn = told.tell(70, after_s=1.0, rate=100.0, now=0.0)
    told.take_back(turn)
    assert when(told, 50, now=0.0) == 1.5
    told.take_back(turn._replace(tick=-1))
    assert when(told, 50, now=0.0) == 2.0
    assert when(told, 50, now=60.0) == 1.0
    told.take_back(turn)
    assert when(told, 50, now=60.0) == 1.5, "its turn was over long ago"


def test_others_add_ten_seconds_at_most_and_are_not_counted_beyond() -> None:
    told = Comebacks()
    for _ in range(5_000):
        last = when(told, 50, now=0.0)
    assert last == 1.0 + AHEAD_MAX_S
    assert when(told, 50, now=1.0 + AHEAD_MAX_S) == 1.0, "all were due"


def test_a_hundred_thousand_refusals_keep_little() -> None:
    told = Comebacks()
    tracemalloc.start()
    try:
        for number in range(100_000):
            told.tell(1, after_s=60.0, rate=1e6, now=number / 10_000)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000


def test_a_sink_that_does_not_drain_tells_its_own_time() -> None:
    told = Comebacks()
    times = [told.tell(50, after_s=7.0, rate=0.0, now=0.0)[0] for _ in range(3)]
    assert times == [7.0, 7.0, 7.0]


def draining(clock: FakeClock):
    """Full, of offers of ten records, and drains ten records a second."""
    room = admission(clock, high_watermark=1.0)
    for _ in range(10):
        room.reserve(10, 0, tenant="t")
    clock.advance(2)
    room.release(20, 0, tenant="t")
    assert room.drain_rate() == pytest.approx(10)
    return room


def test_the_next_refusal_counts_the_former_as_the_usual_offer(clock: FakeClock) -> None:
    room = draining(clock)
    # Twenty records above the low mark; how many an offer has nobody knows yet.
    assert [retry_after(room) for _ in range(3)] == pytest.approx([2, 3, 4])


def test_a_known_size_counts_as_it_is(clock: FakeClock) -> None:
    room = draining(clock)
    said = []
    for _ in range(2):
        with pytest.raises(Saturated) as refused:
            room.reserve(30, 0, tenant="t")
        said.append(refused.value.retry_after_s)
    assert said == pytest.approx([2, 5])


def test_who_only_waits_for_room_takes_no_turn_of_others(clock: FakeClock) -> None:
    room = draining(clock)
    waiting = threading.Thread(
        target=room.await_room, args=(10, 0), kwargs={"tenant": "t", "timeout_s": 5.0}
    )
    waiting.start()
    clock.await_waiting(1)
    assert retry_after(room) == pytest.approx(2), "it may be let in yet"
    clock.advance(5)
    waiting.join()
    # Twenty left in seven seconds: so long for what must leave, and behind the one turned away.
    assert retry_after(room) == pytest.approx(20 / (20 / 7) + 10 / (20 / 7))


def test_an_offer_that_waits_instead_gives_its_turn_back(clock: FakeClock) -> None:
    room = draining(clock)
    with pytest.raises(Saturated) as refused:
        room.reserve(30, 0, tenant="t")
    refused.value.taken_back()
    assert retry_after(room) == pytest.approx(2)


def test_nobody_is_told_more_than_a_minute(clock: FakeClock) -> None:
    room = admission(clock, capacity_records=10_000)
    room.reserve(10_000, 0, tenant="t")
    clock.advance(10)
    room.release(500, 0, tenant="t")
    assert {retry_after(room) for _ in range(30)} == {60.0}
