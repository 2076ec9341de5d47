"""How many batches a sink gets at once, answer by answer."""

from __future__ import annotations

import pytest

from pipeline.delivery.concurrency import (
    ENOUGH,
    REFUSED_ROUNDS,
    REST_ROUNDS,
    ConcurrencyLimit,
    RoundTrips,
)


class Attempts:
    """A limit and the attempts it is told of; as many are under way as it allows, if `busy`."""

    def __init__(self, *, most: int = 8) -> None:
        self.limit = ConcurrencyLimit(most=most)
        self.now = 1000.0

    def round(self, *, seconds: float = 0.1, count: int = 100, busy: bool = True) -> int:
        """As many answers as are looked at together, each as slow as this; returns the limit."""
        for _ in range(max(ENOUGH, self.limit.limit)):
            self.answer(seconds=seconds, count=count, busy=busy)
        return self.limit.limit

    def answer(self, *, seconds: float = 0.1, count: int = 100, busy: bool = True) -> int:
        self.limit.began(self.limit.limit if busy else self.limit.limit - 1)
        self.now += seconds
        self.limit.answered(seconds=seconds, count=count, now=self.now)
        return self.limit.limit

    def up_to(self, limit: int) -> Attempts:
        while self.limit.limit < limit:
            self.round()
        return self

    def refused(self, *, began_s: float | None = None) -> int:
        self.now += 0.1
        seconds = 0.01 if began_s is None else self.now - began_s
        self.limit.pushed_back(seconds=seconds, now=self.now)
        return self.limit.limit


def test_it_starts_at_one_and_grows_by_one_a_round_up_to_the_workers() -> None:
    attempts = Attempts(most=4)
    assert attempts.limit.limit == 1
    assert [attempts.round() for _ in range(5)] == [2, 3, 4, 4, 4]


def test_it_grows_only_when_it_was_reached() -> None:
    attempts = Attempts().up_to(3)
    assert [attempts.round(busy=False) for _ in range(20)] == [3] * 20
    attempts.round()
    assert attempts.limit.limit == 4


def test_a_refusal_lowers_it_to_nine_tenths() -> None:
    attempts = Attempts(most=20).up_to(20)
    assert attempts.refused() == 18
    assert attempts.refused() == 16  # 16.2
    assert attempts.refused() == 15  # 14.6
    assert attempts.round() == 15, "20 had been refused before it was proven"
    assert [attempts.round() for _ in range(REFUSED_ROUNDS)][-1] == 16


def test_an_increase_that_is_refused_is_not_tried_again_at_once() -> None:
    attempts = Attempts().up_to(4)
    assert attempts.refused() == 3, "one less at least"
    assert [attempts.round() for _ in range(REFUSED_ROUNDS)] == [3] * REFUSED_ROUNDS
    assert attempts.round() == 4


def test_what_began_before_the_last_change_lowers_it_no_more() -> None:
    attempts = Attempts(most=20).up_to(20)
    before = attempts.now
    assert [attempts.refused(began_s=before) for _ in range(5)] == [18] * 5
    assert attempts.refused() == 16


def test_never_below_one_where_fewer_writes_are_no_answer() -> None:
    attempts = Attempts()
    assert not attempts.limit.pushed_back(seconds=0.1, now=attempts.now)
    attempts.up_to(2)
    assert attempts.limit.pushed_back(seconds=0.0, now=attempts.now)
    for _ in range(10):
        attempts.refused()
    assert attempts.limit.limit == 1


def test_an_unusual_round_trip_lowers_it_and_a_usual_one_does_not() -> None:
    steady = Attempts(most=20).up_to(20)
    assert steady.answer(seconds=0.12) == 20
    assert steady.answer(seconds=0.15) == 18


def test_a_larger_batch_may_take_longer_in_proportion() -> None:
    attempts = Attempts(most=20).up_to(20)
    assert attempts.answer(seconds=0.2, count=200) == 20
    assert attempts.answer(seconds=0.2, count=100) == 18


def test_the_mean_follows_a_sink_that_is_slower_for_good() -> None:
    attempts = Attempts(most=8).up_to(8)
    lowest = min(attempts.round(seconds=1.0) for _ in range(30))
    assert 5 <= lowest <= 7
    assert attempts.limit.limit == 8


def test_an_increase_that_does_not_pay_is_taken_back_and_not_tried_again_at_once() -> None:
    attempts = Attempts()
    for seconds in (0.08, 0.12) * 4:  # so that no round trip of the next ones is unusual
        attempts.answer(seconds=seconds)
    assert attempts.limit.limit == 2
    assert attempts.round(seconds=0.14) == 1, "2 writers in 0.14 s: 1.4 times what one did"
    assert [attempts.round(seconds=0.1) for _ in range(REST_ROUNDS)] == [1] * REST_ROUNDS
    assert attempts.round(seconds=0.1) == 2


def test_an_increase_that_pays_half_of_a_writer_stays() -> None:
    attempts = Attempts()
    assert attempts.round() == 2
    for seconds in (0.11, 0.12, 0.12, 0.12, 0.13, 0.13, 0.13, 0.13):
        attempts.answer(seconds=seconds)  # 2 writers in 0.124 s: 1.6 times what one did
    assert attempts.limit.limit == 3


def test_an_unproven_increase_is_judged_after_an_unusual_round_trip_too() -> None:
    attempts = Attempts()
    assert attempts.round() == 2
    assert attempts.answer(seconds=0.2) == 2  # 1.8
    attempts.round(seconds=0.2)
    assert attempts.round(seconds=0.2) == 1


def test_fewer_workers_lower_it() -> None:
    attempts = Attempts().up_to(8)
    attempts.limit.configure(most=3)
    assert attempts.limit.limit == 3
    assert attempts.round() == 3
    attempts.limit.configure(most=4)
    assert attempts.round() == 4


def test_a_round_trip_is_unusual_above_mean_and_two_and_a_half_sigma() -> None:
    trips = RoundTrips()
    assert not trips.unusual(1e9, 1), "nothing is unusual yet"
    for n in range(400):
        trips.add(0.8 if n % 2 else 1.2, 100)  # mean 1, sigma 0.2
    assert not trips.unusual(1.45, 100)
    assert trips.unusual(1.58, 100)


@pytest.mark.parametrize(("mean", "usual", "unusual"), [(1.0, 1.24, 1.26), (1e-5, 0.0024, 0.0026)])
def test_the_steadiest_sink_may_vary_a_little(mean: float, usual: float, unusual: float) -> None:
    trips = RoundTrips()
    for _ in range(50):
        trips.add(mean, 100)
    assert not trips.unusual(usual, 100)
    assert trips.unusual(unusual, 100)


def test_an_unusual_round_trip_now_and_then_does_not_wear_it_down() -> None:
    attempts = Attempts(most=4).up_to(4)
    for _ in range(10):
        assert attempts.answer(seconds=0.5) == 4  # 3.6
        for _ in range(10):
            attempts.round()
    assert attempts.limit.limit == 4
