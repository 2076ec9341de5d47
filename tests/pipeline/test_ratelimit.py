"""Token buckets: never more than burst + rate * t, never less than promised, bounded in number."""

from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.intake.ratelimit import Bucket, Buckets
from pipeline.runtime.clock import FakeClock


def bucket(clock: FakeClock, *, rate_per_s: float = 2.0, burst: float = 3) -> Bucket:
    return Bucket(rate_per_s=rate_per_s, burst=burst, monotonic=clock.monotonic)


def test_a_burst_and_then_the_rate():
    clock = FakeClock()
    one = bucket(clock)
    assert [one.take() for _ in range(4)] == [0, 0, 0, 0.5]
    clock.advance(0.5)
    assert one.take() == 0
    assert one.take() == 0.5


def test_what_is_refused_takes_nothing():
    clock = FakeClock()
    one = bucket(clock)
    assert one.take(2) == 0
    assert one.take(3) == 1.0
    assert one.take(1) == 0


def test_more_than_the_burst_is_never_there():
    one = bucket(FakeClock())
    assert one.take(4) == math.inf
    assert one.take(3) == 0


def test_it_fills_no_higher_than_the_burst():
    clock = FakeClock()
    one = bucket(clock)
    clock.advance(1e6)
    assert [one.take() for _ in range(4)] == [0, 0, 0, 0.5]


def test_a_clock_that_goes_back_gives_nothing():
    now = [100.0]
    one = Bucket(rate_per_s=1, burst=1, monotonic=lambda: now[0])
    assert one.take() == 0
    now[0] = 50.0
    assert one.take() > 0
    now[0] = 100.0
    assert one.take() > 0
    now[0] = 101.0
    assert one.take() == 0


def test_a_changed_limit_keeps_what_was_used():
    clock = FakeClock()
    one = bucket(clock, rate_per_s=1, burst=10)
    assert one.take(8) == 0
    one.configure(rate_per_s=1, burst=5)
    assert one.take(2) == 0
    assert one.take(1) == 1.0


@pytest.mark.parametrize(("rate_per_s", "burst"), [(0, 1), (-1, 1), (math.inf, 1), (1, 0.5)])
def test_limits_that_make_no_sense_are_refused(rate_per_s, burst):
    with pytest.raises(ValueError):
        Bucket(rate_per_s=rate_per_s, burst=burst, monotonic=FakeClock().monotonic)


@pytest.mark.parametrize("n", [0, -1, math.nan])
def test_taking_nothing_is_a_mistake(n):
    with pytest.raises(ValueError):
        bucket(FakeClock()).take(n)


@given(
    rate=st.floats(0.01, 1000),
    burst=st.floats(1, 100),
    steps=st.lists(st.tuples(st.floats(0, 10), st.integers(1, 20)), max_size=60),
)
def test_never_more_than_burst_and_rate_times_time(rate, burst, steps):
    clock = FakeClock()
    one = bucket(clock, rate_per_s=rate, burst=burst)
    began, given_out = clock.monotonic(), 0
    for wait_s, n in steps:
        clock.advance(wait_s)
        if one.take(n) == 0:
            given_out += n
        assert given_out <= burst + rate * (clock.monotonic() - began) + 1e-6


@given(rate=st.floats(0.01, 1000), burst=st.floats(1, 100), n=st.integers(1, 20))
def test_whoever_waits_as_told_gets_it(rate, burst, n):
    clock = FakeClock()
    one = bucket(clock, rate_per_s=rate, burst=burst)
    while one.take() == 0:
        pass
    wait_s = one.take(n)
    if math.isinf(wait_s):
        assert n > burst
        return
    clock.advance(wait_s + 1e-6)
    assert one.take(n) == 0


@pytest.mark.concurrency
def test_threads_share_one_burst():
    one = bucket(FakeClock(), burst=100)
    got: list[int] = []

    def grab():
        got.extend(1 for _ in range(50) if one.take() == 0)

    threads = [threading.Thread(target=grab) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(got) == 100


def buckets(clock: FakeClock, *, max_buckets: int = 2) -> Buckets[str]:
    return Buckets(rate_per_s=1, burst=1, monotonic=clock.monotonic, max_buckets=max_buckets)


def test_each_key_has_its_own():
    many = buckets(FakeClock())
    assert many.take("a") == 0
    assert many.take("b") == 0
    assert many.take("a") == 1.0


def test_the_longest_silent_makes_room():
    clock = FakeClock()
    many = buckets(clock)
    assert many.take("a") == 0
    assert many.take("b") == 0
    assert many.take("a") > 0  # heard of, be it refused
    clock.advance(1.0)
    assert many.take("c") == 0
    assert len(many) == 2
    assert many.forgotten_early == 0
    assert many.take("a") == 0


def test_a_bucket_forgotten_before_it_was_full_is_counted():
    many = buckets(FakeClock(), max_buckets=1)
    assert many.take("a") == 0
    assert many.take("b") == 0
    assert many.forgotten_early == 1


def test_a_set_without_room_is_a_mistake():
    with pytest.raises(ValueError):
        buckets(FakeClock(), max_buckets=0)
