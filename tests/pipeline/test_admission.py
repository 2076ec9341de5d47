"""Admission: watermarks with hysteresis, refusals with a time, room that is given back."""

from __future__ import annotations

import random
from functools import partial

import pytest

from pipeline.errors import Saturated, TooLarge
from pipeline.intake.admission import Admission, Closed
from pipeline.runtime.clock import FakeClock
from pipeline.settings import PipelineSettings
from tests.pipeline.rig import run_all


def admission(clock: FakeClock, **settings: float) -> Admission:
    defaults = {
        "capacity_records": 100,
        "backlog_max_bytes": 10_000,
        "max_records": 1,
        "max_bytes": 1,
    }
    return Admission(
        name="a",
        settings=PipelineSettings(**{**defaults, **settings}),  # type: ignore[arg-type]
        clock=clock,
    )


def retry_after(of: Admission) -> float:
    refused = of.check("t")
    assert refused is not None
    return refused.retry_after_s


def test_offers_are_refused_from_the_high_mark_until_the_low_one(clock: FakeClock) -> None:
    room = admission(clock)
    room.reserve(79, 0, tenant="t")
    assert room.check("t") is None
    room.reserve(1, 0, tenant="t")
    assert room.refusing
    with pytest.raises(Saturated):
        room.reserve(1, 0, tenant="t")
    room.release(19, 0, tenant="t")
    assert isinstance(room.check("t"), Saturated), "61 of 100 is above the low mark"
    room.release(1, 0, tenant="t")
    assert not room.refusing
    room.reserve(1, 0, tenant="t")
    assert (room.held_records, room.refused) == (61, 2)


def test_a_refusal_says_when_it_is_over(clock: FakeClock) -> None:
    room = admission(clock, capacity_records=100, backlog_max_bytes=1_000)
    room.reserve(80, 100, tenant="t")
    refused = room.check("t")
    assert str(refused) == (
        "sink 'a' holds 80 records of 100 and 100 bytes of 1000, and drains 0 records a second; "
        "it admits again once it holds at most 60 records"
    )
    room.release(19, 0, tenant="t")
    room.fits(0, 800, tenant="t")
    assert str(room.check("t")).endswith("at most 60 records and 600 bytes")
    room.release(60, 0, tenant="t")
    assert str(room.check("t")).endswith("at most 600 bytes")


def test_bytes_have_marks_of_their_own(clock: FakeClock) -> None:
    room = admission(clock)
    room.reserve(1, 8_000, tenant="t")
    assert room.refusing
    room.release(0, 2_000, tenant="t")
    assert not room.refusing


def test_an_offer_that_fits_may_pass_the_high_mark_but_never_the_capacity(clock: FakeClock) -> None:
    room = admission(clock)
    room.reserve(70, 0, tenant="t")
    with pytest.raises(Saturated):
        room.reserve(31, 0, tenant="t")
    room.reserve(30, 0, tenant="t")
    assert room.held_records == 100


def test_a_refused_offer_holds_nothing(clock: FakeClock) -> None:
    room = admission(clock)
    room.reserve(50, 9_000, tenant="t")
    for wanted in ((51, 0), (1, 1_001)):
        with pytest.raises(Saturated):
            room.reserve(*wanted, tenant="t")
    assert (room.held_records, room.held_bytes) == (50, 9_000)


@pytest.mark.parametrize("wanted", [(101, 0), (1, 10_001)])
def test_what_could_never_fit_is_too_large_and_names_both_limits(
    clock: FakeClock, wanted: tuple[int, int]
) -> None:
    room = admission(clock)
    with pytest.raises(TooLarge, match="send less") as refused:
        room.reserve(*wanted, tenant="t")
    assert refused.value.limit == "capacity_records=100, backlog_max_bytes=10000"
    assert not room.could_fit(*wanted)
    assert room.refused == 1


def test_retry_after_is_the_backlog_above_the_low_mark_over_the_drain_rate(
    clock: FakeClock,
) -> None:
    room = admission(clock, capacity_records=1000, max_records=1)
    room.reserve(900, 0, tenant="t")
    clock.advance(5)
    room.release(50, 0, tenant="t")  # 50 in 5 s: 10 a second; 850 held, 250 above the low mark
    assert room.drain_rate() == pytest.approx(10)
    assert retry_after(room) == pytest.approx(25)


def test_the_scarcer_capacity_decides_how_long_to_wait(clock: FakeClock) -> None:
    room = admission(clock)
    room.reserve(20, 10_000, tenant="t")
    clock.advance(2)
    room.release(
        2, 1_000, tenant="t"
    )  # 1 a second; 3,000 bytes above the low mark are 6 records of 500
    assert retry_after(room) == pytest.approx(6)


@pytest.mark.parametrize(("drained_a_second", "seconds"), [(1, 20), (50, 1), (0.2, 60)])
def test_retry_after_is_between_one_second_and_one_minute(
    clock: FakeClock, drained_a_second: float, seconds: float
) -> None:
    room = admission(clock, capacity_records=10_000)
    room.reserve(6_020 + round(drained_a_second * 10), 0, tenant="t")
    room.reserve(2_000, 0, tenant="t")  # past the high mark
    room.release(2_000, 0, drained=False, tenant="t")
    clock.advance(10)
    room.release(round(drained_a_second * 10), 0, tenant="t")
    assert retry_after(room) == pytest.approx(seconds)


def test_while_nothing_has_left_yet_the_time_grows_with_the_wait(clock: FakeClock) -> None:
    room = admission(clock)
    room.reserve(90, 0, tenant="t")
    assert retry_after(room) == 1, "the first batch may leave in a moment"
    clock.advance(7)
    assert retry_after(room) == pytest.approx(7)
    clock.advance(500)
    assert retry_after(room) == 60, "a dead sink"


def test_idle_time_does_not_slow_the_drain_rate(clock: FakeClock) -> None:
    room = admission(clock)
    clock.advance(3600)
    room.reserve(100, 0, tenant="t")
    clock.advance(2)
    room.release(20, 0, tenant="t")
    assert room.drain_rate() == pytest.approx(10)


def test_the_drain_rate_looks_back_ten_seconds(clock: FakeClock) -> None:
    room = admission(clock, capacity_records=10_000)
    room.reserve(10_000, 0, tenant="t")
    room.release(5_000, 0, tenant="t")
    clock.advance(10)
    for _ in range(10):
        room.release(7, 0, tenant="t")
        room.release(3, 0, tenant="t")
        clock.advance(1)
    assert room.drain_rate() == pytest.approx(10, rel=0.2)
    clock.advance(20)
    assert room.drain_rate() == 0


def test_room_given_back_unused_is_no_drain(clock: FakeClock) -> None:
    room = admission(clock)
    room.reserve(10, 10, tenant="t")
    room.release(10, 10, drained=False, tenant="t")
    assert room.drain_rate() == 0
    assert (room.held_records, room.held_bytes) == (0, 0)


def test_an_optional_sink_takes_room_whatever_the_marks_say(clock: FakeClock) -> None:
    room = admission(clock)
    assert room.fits(90, 0, tenant="t")
    assert room.refusing
    assert room.fits(10, 10_000, tenant="t")
    assert not room.fits(1, 0, tenant="t")
    assert (room.held_records, room.held_bytes) == (100, 10_000)


def test_changed_capacities_count_at_once(clock: FakeClock) -> None:
    room = admission(clock)
    room.reserve(50, 0, tenant="t")
    room.configure(PipelineSettings(capacity_records=50, max_records=1), name="b")
    assert room.refusing
    with pytest.raises(Saturated, match="sink 'b' holds 50 records of 50"):
        room.reserve(1, 0, tenant="t")
    room.configure(PipelineSettings(capacity_records=500, max_records=1), name="b")
    room.reserve(1, 0, tenant="t")


def test_a_closed_admission_sends_offers_elsewhere_until_reopened(clock: FakeClock) -> None:
    room = admission(clock)
    room.reserve(1, 1, tenant="t")
    room.close()
    with pytest.raises(Closed):
        room.reserve(1, 0, tenant="t")
    with pytest.raises(Closed):
        room.fits(1, 0, tenant="t")
    room.release(1, 1, tenant="t")
    room.reopen()
    room.reserve(1, 0, tenant="t")


@pytest.mark.concurrency
def test_many_threads_never_hold_more_than_the_capacity_and_leave_nothing(
    clock: FakeClock,
) -> None:
    room = admission(clock)
    highest: list[int] = []

    def client(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(400):
            wanted = chance.randrange(1, 40), chance.randrange(1, 4_000)
            try:
                room.reserve(*wanted, tenant="t")
            except Saturated:
                room.check("t")
                continue
            highest.append(room.held_records)
            room.release(*wanted, drained=chance.random() < 0.5, tenant="t")

    run_all([partial(client, seed) for seed in range(6)])
    assert (room.held_records, room.held_bytes) == (0, 0)
    assert max(highest) <= 100
    assert not room.refusing


def test_the_peak_is_the_fullest_since_it_was_last_asked(clock: FakeClock) -> None:
    room = admission(clock)
    room.reserve(70, 100, tenant="t")
    room.release(60, 50, tenant="t")
    assert room.take_peak() == 0.7
    assert room.take_peak() == 0.1, "what is held when it is asked begins the next interval"
    room.release(10, 50, tenant="t")
    room.reserve(1, 9_000, tenant="t")
    room.release(1, 9_000, tenant="t")
    assert room.take_peak() == 0.9, "bytes fill it as well as records do"
    assert room.take_peak() == 0.0
