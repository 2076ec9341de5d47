"""The size of a batch, flush by flush: when it grows, when it shrinks, when it stays."""

from __future__ import annotations

import pytest

from pipeline.batching.adaptive import AdaptiveSettings, BatchSize


class Flushes:
    """A batch size and the flushes it is told of, one after the other."""

    def __init__(self, **settings: float) -> None:
        self.size = BatchSize(AdaptiveSettings(batch=True, **settings))  # type: ignore[arg-type]
        self.now = 1000.0

    def ok(self, times: int = 1, *, fill: float = 1.0, seconds: float = 0.1) -> int:
        """So many flushes as full as this; returns the limit then."""
        for _ in range(times):
            self.now += seconds
            count = round(self.size.limit * fill)
            self.size.flushed(
                count=count, full=count >= self.size.limit, seconds=seconds, now=self.now
            )
        return self.size.limit

    def failed(self, *, formed_s: float | None = None) -> int:
        self.now += 0.1
        self.size.failed(formed_s=self.now if formed_s is None else formed_s, now=self.now)
        return self.size.limit


def test_it_starts_at_a_hundred_between_ten_and_ten_thousand() -> None:
    flushes = Flushes()
    assert flushes.size.limit == 100
    assert flushes.ok(400) == 10_000
    assert flushes.ok(400, fill=0.3) == 10


def test_full_and_quick_flushes_make_it_a_quarter_larger() -> None:
    flushes = Flushes()
    assert flushes.ok(3) == 100, "too few to judge by"
    assert flushes.ok() == 125
    assert flushes.ok(3) == 125, "each step is judged by what came of it"
    assert flushes.ok() == 156


@pytest.mark.parametrize(
    ("fill", "seconds", "limit"),
    [
        (0.91, 0.49, 125),
        (0.90, 0.49, 100),  # not full enough
        (1.00, 0.50, 100),  # not quick enough
        (0.50, 0.10, 100),  # not empty enough
        (0.49, 0.10, 87),
        (1.00, 1.00, 100),  # just within its deadline
        (1.00, 1.01, 87),
    ],
)
def test_where_it_grows_and_where_it_shrinks(fill: float, seconds: float, limit: int) -> None:
    assert Flushes().ok(4, fill=fill, seconds=seconds) == limit


def test_means_decide_and_no_single_flush() -> None:
    flushes = Flushes()
    flushes.ok(3)
    assert flushes.ok(seconds=1.2) == 125, "a mean of 0.375 s is less than half a second"


def test_an_error_makes_it_an_eighth_smaller_at_once_and_is_remembered_for_ten_flushes() -> None:
    flushes = Flushes(start_records=1000)
    assert flushes.failed() == 875
    assert flushes.ok(3) == 875
    assert flushes.ok() == 765
    assert flushes.ok(4) == 669
    assert flushes.ok(1) == 669
    assert flushes.ok(1) == 669, "the tenth flush since: it is forgotten with this one"
    assert flushes.ok(2) == 836


def test_one_hiccup_under_many_writes_is_one_step() -> None:
    flushes = Flushes(start_records=1000)
    before = flushes.now
    assert [flushes.failed(formed_s=before) for _ in range(3)] == [875, 875, 875]


def test_errors_of_each_new_size_go_on_making_it_smaller() -> None:
    flushes = Flushes(start_records=1000)
    assert [flushes.failed() for _ in range(3)] == [875, 765, 669]


def test_what_was_full_by_an_earlier_limit_is_full_and_its_time_taken_in_proportion() -> None:
    flushes = Flushes()
    flushes.ok(4, seconds=0.45)
    assert flushes.size.limit == 125
    for _ in range(4):  # were on their way when the limit changed: 0.45 s for 100 is 0.56 for 125
        flushes.size.flushed(count=100, full=True, seconds=0.45, now=flushes.now)
    assert flushes.size.limit == 125
    for _ in range(10):
        flushes.size.flushed(count=100, full=True, seconds=0.3, now=flushes.now)
    assert flushes.size.limit > 125


def test_a_small_size_still_moves() -> None:
    flushes = Flushes(start_records=1, min_records=1)
    assert flushes.ok(4) == 2
    assert flushes.ok(4) == 3
    assert flushes.failed() == 2
    assert flushes.failed() == 1
    assert flushes.failed() == 1


def test_changed_settings_keep_what_was_found_as_far_as_they_let_it() -> None:
    flushes = Flushes()
    flushes.ok(40)
    found = flushes.size.limit
    assert found > 500
    flushes.size.configure(AdaptiveSettings(batch=True, flush_deadline_s=9), now=flushes.now)
    assert flushes.size.limit == found
    flushes.size.configure(AdaptiveSettings(batch=True, max_records=200), now=flushes.now)
    assert flushes.size.limit == 200
    assert flushes.ok(40) == 200


def test_within_what_a_sink_takes_at_once() -> None:
    within = AdaptiveSettings(start_records=2000, min_records=1500).within(1000)
    assert (within.min_records, within.start_records, within.max_records) == (1000, 1000, 1000)
    assert AdaptiveSettings().within(1000).start_records == 100
