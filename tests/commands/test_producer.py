"""The producer's thread: its ticks, its pauses, what it does when there is no room, its ends."""

from __future__ import annotations

import threading

import pytest

from ingest.producer.producer import MAKE_UP_S, Producer
from pipeline.errors import Draining, Saturated
from pipeline.runtime.clock import FakeClock

PATIENCE_S = 180.0


class SleepingClock:
    """Waiting moves it at once, and `late_s` further; keeps what was waited for."""

    def __init__(self, *, late_s: float = 0.0) -> None:
        self.waits: list[float] = []
        self._late_s = late_s
        self._now = 1000.0

    def monotonic(self) -> float:
        return self._now

    def time_us(self) -> int:
        return round(self._now * 1_000_000)

    def wait(self, condition, timeout_s) -> None:
        self.waits.append(round(timeout_s, 9))
        self._now += timeout_s + self._late_s


class Taker:
    """Takes offers; refuses those of which `full` says so, by their number."""

    def __init__(self, clock, full=lambda number: False):
        self.times: list[float] = []
        self.taken = []
        self.offers = 0
        self._clock, self._full = clock, full

    def __call__(self, records):
        self.offers += 1
        if self._full(self.offers):
            raise Saturated("full")
        self.times.append(round(self._clock.monotonic() - 1000.0, 9))
        self.taken += records


def produce(clock, taker, *, usage=lambda: 0.0, rate_s=0.1, **options):
    ended = threading.Event()
    producer = Producer(
        rate_s=rate_s, offer=taker, usage=usage, ended=ended.set, clock=clock, **options
    )
    producer.start()
    assert ended.wait(PATIENCE_S)
    assert producer.stop(PATIENCE_S)
    return producer


def test_one_log_at_each_tick():
    clock = SleepingClock()
    taker = Taker(clock)
    producer = produce(clock, taker, count=4)
    assert taker.times == [0.0, 0.1, 0.2, 0.3]
    assert producer.produced == 4
    assert producer.why == "4 logs are made"
    assert [one.timestamp_us for one in taker.taken][:2] == [1_000_000_000, 1_000_100_000]


@pytest.mark.parametrize(
    ("usage", "pause_s"), [(0.80, None), (0.81, 0.0005), (0.91, 0.001), (0.96, 0.002)]
)
def test_it_pauses_before_each_log_as_the_queue_demands(usage, pause_s):
    clock = SleepingClock()
    producer = produce(clock, Taker(clock), usage=lambda: usage, rate_s=1e-6, count=3)
    pauses = [wait for wait in clock.waits if wait > 1e-6]
    assert pauses == ([pause_s] * 3 if pause_s else [])
    assert producer.paced_s == pytest.approx(sum(pauses))


def test_ticks_that_passed_in_a_pause_are_not_made_up_for():
    clock = SleepingClock()
    usages = iter([0.96, 0.0, 0.0])
    taker = Taker(clock)
    produce(clock, taker, usage=lambda: next(usages), rate_s=0.001, count=3)
    assert taker.times == [0.002, 0.003, 0.004]


def test_ticks_that_the_system_let_pass_are_made_up_for():
    clock = SleepingClock(late_s=0.0005)
    taker = Taker(clock)
    produce(clock, taker, rate_s=0.0001, count=100)
    # Each sleep takes six ticks; those that were missed follow at once.
    assert taker.times[-1] == pytest.approx(0.0099, abs=0.0007)


def test_a_long_standstill_is_not_made_up_for():
    clock = SleepingClock(late_s=1.0)
    taker = Taker(clock)
    produce(clock, taker, rate_s=0.001, count=50)
    made_at_once = max(taker.times.count(moment) for moment in taker.times)
    assert made_at_once <= MAKE_UP_S / 0.001 + 2


def test_what_finds_no_room_is_offered_again_until_it_is_taken():
    clock = SleepingClock()
    taker = Taker(clock, full=lambda number: number in (2, 3, 4))
    producer = produce(clock, taker, rate_s=1e-6, count=2)
    assert producer.produced == 2 == len(taker.taken)
    assert producer.refused == 3
    assert clock.waits.count(0.002) == 3
    # It keeps the time at which it was made.
    assert taker.taken[1].timestamp_us < 1_000_000_000 + 6_000


def test_it_ends_when_its_time_is_over():
    clock = SleepingClock()
    taker = Taker(clock)
    producer = produce(clock, taker, duration_s=0.25)
    assert taker.times == [0.0, 0.1, 0.2]
    assert producer.why == "its time is over"
    assert clock.monotonic() == pytest.approx(1000.25)


def test_a_tick_that_never_comes_ends_with_the_time():
    clock = SleepingClock()
    taker = Taker(clock)
    produce(clock, taker, rate_s=3600.0, duration_s=1.0)
    assert taker.times == [0.0]
    assert clock.monotonic() == pytest.approx(1001.0)


def test_a_stop_ends_the_longest_pause():
    clock = FakeClock()
    ended = threading.Event()
    producer = Producer(
        rate_s=3600.0, offer=lambda records: None, usage=lambda: 0.0, ended=ended.set, clock=clock
    )
    producer.start()
    clock.await_waiting(1)
    assert producer.stop(PATIENCE_S)
    assert ended.is_set()
    assert (producer.produced, producer.why, producer.broke) == (1, "stopped", False)


def test_a_stop_ends_the_wait_for_room_and_what_was_not_taken_is_not_counted():
    clock = FakeClock()
    producer = Producer(
        rate_s=0.001,
        offer=Taker(clock, full=lambda number: True),
        usage=lambda: 0.0,
        ended=lambda: None,
        clock=clock,
    )
    producer.start()
    clock.await_waiting(1)
    assert producer.stop(PATIENCE_S)
    assert (producer.produced, producer.refused) == (0, 1)


def test_a_stop_before_the_start_does_nothing():
    producer = Producer(
        rate_s=1.0,
        offer=lambda records: None,
        usage=lambda: 0.0,
        ended=lambda: None,
        clock=FakeClock(),
    )
    assert producer.stop(0.0)


def test_a_queue_that_is_closed_under_it_ends_it_with_the_reason():
    def offer(records):
        raise Draining("the server is stopping")

    clock = SleepingClock()
    producer = produce(clock, offer, count=1)
    assert producer.broke
    assert producer.why == "the queue takes nothing more: the server is stopping"


def test_whatever_breaks_it_is_told(caplog):
    def offer(records):
        raise RuntimeError("boom")

    clock = SleepingClock()
    producer = produce(clock, offer, count=1)
    assert producer.broke
    assert producer.why == "the producer broke: RuntimeError: boom"
    assert "the producer broke" in caplog.text


def test_its_time_is_over_though_there_is_never_room():
    clock = SleepingClock()
    taker = Taker(clock, full=lambda number: True)
    producer = produce(clock, taker, duration_s=0.25)
    assert (producer.produced, producer.why) == (0, "its time is over")
    assert clock.monotonic() == pytest.approx(1000.25, abs=0.003)
