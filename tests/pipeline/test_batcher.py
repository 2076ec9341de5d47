"""The batcher: where a batch ends, and why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batching.batcher import Batcher
from pipeline.log.log import Log
from pipeline.record import ERROR, INFO, Part, Record
from pipeline.settings import PipelineSettings
from tests.pipeline.support import frame, record, records, share, weight

Taken = list[tuple[list[str], str]]


class Bench:
    """A batcher with its log, fed with requests; time is a number the test writes down."""

    def __init__(self, **settings: float | str) -> None:
        self.log = Log(log_id="log")
        self.now = 1000.0
        self.batcher = Batcher(
            log=self.log, cursor=self.log.cursor("a"), settings=self.settings(**settings)
        )

    @staticmethod
    def settings(**settings: float | str) -> PipelineSettings:
        return PipelineSettings(**{"max_records": 10, "max_wait_s": 0.1, **settings})  # type: ignore[arg-type]

    def offer(self, of: list[Record], *, tenant: str = "t", min_severity: int = 0) -> None:
        owed = share(of, min_severity=min_severity)
        self.log.append(frame(of, owed, tenant=tenant, arrived_s=self.now))

    def due(self, *, shutdown: bool = False) -> float | None:
        return self.batcher.due_s(self.now, shutdown=shutdown)

    def take(self, *, shutdown: bool = False) -> tuple[list[Part], str]:
        assert self.due(shutdown=shutdown) == 0
        return self.batcher.take(shutdown=shutdown)

    def take_due(self, *, shutdown: bool = False) -> Taken:
        """All batches that may close now: the messages of each, and what closed it."""
        taken: Taken = []
        while self.due(shutdown=shutdown) == 0:
            parts, reason = self.batcher.take(shutdown=shutdown)
            taken.append(([r.message for part in parts for r in part.records], reason))
        return taken


def sizes(taken: Taken) -> list[tuple[int, str]]:
    return [(len(messages), reason) for messages, reason in taken]


def test_a_batch_closes_at_exactly_max_records() -> None:
    bench = Bench()
    bench.offer(records(9))
    assert bench.due() == pytest.approx(0.1)
    bench.offer(records(1))
    assert sizes(bench.take_due()) == [(10, "size")]
    assert bench.due() is None


def test_a_request_is_split_across_batches_in_order() -> None:
    bench = Bench()
    of = records(25)
    bench.offer(of[:7])
    bench.offer(of[7:])
    taken = bench.take_due()
    assert sizes(taken) == [(10, "size"), (10, "size")]
    assert bench.batcher.waiting_records == 5
    taken += bench.take_due(shutdown=True)
    assert [m for messages, _ in taken for m in messages] == [r.message for r in of]


def test_the_rest_of_a_split_request_keeps_its_time_of_arrival() -> None:
    bench = Bench()
    bench.offer(records(12))
    bench.now += 0.04
    bench.offer(records(1))
    assert sizes(bench.take_due()) == [(10, "size")]
    assert bench.due() == pytest.approx(0.06)


def test_a_batch_holds_exactly_the_bytes_it_may() -> None:
    of = [record("x" * 50) for _ in range(8)]
    bench = Bench(max_records=100, max_bytes=weight(of[:4]))
    bench.offer(of)
    assert sizes(bench.take_due()) == [(4, "bytes"), (4, "bytes")]
    bench = Bench(max_records=100, max_bytes=weight(of[:4]) - 1)
    bench.offer(of)
    assert sizes(bench.take_due(shutdown=True)) == [(3, "bytes"), (3, "bytes"), (2, "shutdown")]


def test_whole_requests_are_measured_by_bytes_as_exactly_as_split_ones() -> None:
    of = [record("x" * 50) for _ in range(6)]
    bench = Bench(max_records=100, max_bytes=weight(of[:3]))
    for one in of:
        bench.offer([one])
    assert sizes(bench.take_due()) == [(3, "bytes"), (3, "bytes")]


def test_a_single_larger_record_travels_alone() -> None:
    small, large = [record("x" * 10) for _ in range(4)], record("y" * 5_000)
    bench = Bench(max_records=100, max_bytes=1_000)
    bench.offer([*small[:2], large, *small[2:]])
    taken = bench.take_due(shutdown=True)
    assert sizes(taken) == [(2, "bytes"), (1, "bytes"), (2, "shutdown")]
    assert taken[1][0] == [large.message]


def test_a_larger_record_alone_in_its_request_travels_alone() -> None:
    bench = Bench(max_bytes=1_000)
    bench.offer([record("y" * 5_000)])
    bench.offer([record("z" * 5_000)])
    assert sizes(bench.take_due()) == [(1, "bytes"), (1, "bytes")]


def test_of_both_limits_the_one_that_is_met_first_closes() -> None:
    of = [record("x" * 50) for _ in range(30)]
    bench = Bench(max_records=10, max_bytes=weight(of[:20]))
    bench.offer(of)
    assert sizes(bench.take_due()) == [(10, "size")] * 3


def test_three_items_and_100_ms_are_one_time_flush() -> None:
    bench = Bench(max_wait_s=0.1)
    bench.offer(records(3))
    bench.now += 0.099
    assert bench.take_due() == []
    assert bench.due() == pytest.approx(0.001)
    bench.now += 0.0011
    assert sizes(bench.take_due()) == [(3, "time")]


def test_25_items_in_tens_are_two_size_flushes_and_five_on_close() -> None:
    bench = Bench(max_records=10)
    for one in records(25):
        bench.offer([one])
    assert sizes(bench.take_due()) == [(10, "size"), (10, "size")]
    assert sizes(bench.take_due(shutdown=True)) == [(5, "shutdown")]


def test_reasons_over_a_mixed_run() -> None:
    bench = Bench(max_records=10, max_bytes=4_000, max_wait_s=0.1)
    reasons = []
    bench.offer(records(10))
    reasons += sizes(bench.take_due())
    bench.offer(records(4))
    bench.now += 0.2
    reasons += sizes(bench.take_due())
    bench.offer([record("x" * 1_500) for _ in range(4)])
    reasons += sizes(bench.take_due())
    bench.batcher.flush_below(bench.log.next_position)
    reasons += sizes(bench.take_due())
    bench.offer(records(3))
    reasons += sizes(bench.take_due(shutdown=True))
    assert reasons == [(10, "size"), (4, "time"), (2, "bytes"), (2, "flush"), (3, "shutdown")]


def test_a_full_batch_is_a_size_flush_even_when_late_flushed_or_stopping() -> None:
    bench = Bench(max_records=10)
    bench.offer(records(10))
    bench.now += 5
    bench.batcher.flush_below(99)
    assert sizes(bench.take_due(shutdown=True)) == [(10, "size")]


def test_a_flush_closes_what_came_before_it_and_nothing_later() -> None:
    bench = Bench()
    bench.offer(records(2))
    bench.offer(records(2))
    bench.batcher.flush_below(bench.log.next_position)
    assert sizes(bench.take_due()) == [(4, "flush")]
    bench.batcher.flush_below(1)  # an older flush takes nothing back
    bench.offer(records(1))
    assert bench.due() == pytest.approx(0.1)


def test_a_flush_reaches_the_rest_of_a_split_request() -> None:
    bench = Bench()
    bench.offer(records(13))
    bench.batcher.flush_below(bench.log.next_position)
    assert sizes(bench.take_due()) == [(10, "size"), (3, "flush")]


def test_a_sink_that_takes_part_of_a_request_gets_that_part_weighed_exactly() -> None:
    of = [record("x" * (400 if n % 2 else 10), severity=ERROR if n % 2 else INFO) for n in range(9)]
    errors = [r for r in of if r.severity == ERROR]
    bench = Bench(max_records=100, max_bytes=weight(errors[:2]))
    bench.offer(of, min_severity=ERROR)
    bench.now += 1
    assert sizes(bench.take_due()) == [(2, "bytes"), (2, "bytes")]


def test_what_was_reserved_for_a_part_of_a_request_is_given_back_to_the_byte() -> None:
    of = [record("x" * n * 10, severity=ERROR if n % 3 else INFO) for n in range(20)]
    reserved = share(of, min_severity=ERROR).nbytes
    bench = Bench(max_records=3)
    bench.offer(of, min_severity=ERROR)
    held = 0
    while bench.due(shutdown=True) == 0:
        parts, _ = bench.take(shutdown=True)
        held += sum(part.held_bytes for part in parts)
    assert held == reserved


def test_waiting_records_are_counted_by_tenant_with_the_rest_of_a_split_request() -> None:
    bench = Bench()
    bench.offer(records(14), tenant="a")
    bench.offer(records(5), tenant="b")
    taken = [bench.take()[1] for _ in range(2)]
    assert taken == ["turn", "size"], "b had nothing waiting"
    with bench.log.lock:
        assert bench.batcher.waiting_by_tenant() == {"a": 4}
    assert bench.batcher.waiting_records == 4
    assert bench.batcher.lowest_position() == 0


def test_no_aliasing_between_a_flushed_batch_and_the_next() -> None:
    bench = Bench(max_records=10)
    bench.offer(records(25))
    taken = [bench.take()[0] for _ in range(2)]
    before = [r.message for part in taken[0] for r in part.records]
    taken[0][0].records.clear()
    taken[1][0].records[0].message = "changed"
    assert len(before) == 10
    rest = bench.take(shutdown=True)[0]
    assert len(rest[0].records) == 5
    assert all(r.message != "changed" for r in rest[0].records)


def test_the_oldest_go_first_when_a_sink_has_to_let_some_go() -> None:
    bench = Bench()
    bench.offer(records(12))
    bench.offer(records(3))
    bench.take()
    oldest = [bench.batcher.take_oldest() for _ in range(3)]
    assert [part.count if part else 0 for part in oldest] == [2, 3, 0]
    assert (bench.batcher.waiting_records, bench.batcher.waiting_bytes) == (0, 0)


def test_changed_settings_count_from_the_next_batch() -> None:
    bench = Bench(max_records=10)
    bench.offer(records(9))
    bench.batcher.configure(Bench.settings(max_records=3))
    assert sizes(bench.take_due()) == [(3, "size")] * 3


@given(
    requests=st.lists(
        st.lists(st.tuples(st.integers(0, 400), st.booleans()), min_size=1, max_size=30),
        min_size=1,
        max_size=12,
    ),
    max_records=st.integers(1, 20),
    max_bytes=st.integers(30, 2_000),
    errors_only=st.booleans(),
)
def test_any_requests_are_cut_into_batches_within_both_limits_losing_nothing(
    requests: list[list[tuple[int, bool]]], max_records: int, max_bytes: int, errors_only: bool
) -> None:
    bench = Bench(max_records=max_records, max_bytes=max_bytes)
    expected: list[str] = []
    for number, request in enumerate(requests):
        of = [
            record(f"{number}.{i}" + "x" * size, severity=ERROR if error else INFO)
            for i, (size, error) in enumerate(request)
        ]
        passing = [r.message for r in of if r.severity == ERROR or not errors_only]
        if passing:
            bench.offer(of, min_severity=ERROR if errors_only else 0)
            expected += passing
    got: list[str] = []
    while bench.due(shutdown=True) == 0:
        parts, reason = bench.take(shutdown=True)
        batch = [r for part in parts for r in part.records]
        assert 1 <= len(batch) <= max_records
        nbytes = sum(part.nbytes for part in parts)
        assert nbytes == weight(batch)
        assert nbytes <= max_bytes or len(batch) == 1
        assert reason in {"size", "bytes", "shutdown"}
        got += [r.message for r in batch]
    assert got == expected
    assert bench.batcher.waiting_records == bench.batcher.waiting_bytes == 0
