"""The small contracts of a good batcher, one test each, through a whole engine on a fake clock.

Nothing sleeps: a sink that takes a second waits by the test's clock.  What each part promises in
detail is tested beside that part; here stands what a user may rely on.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.delivery.breaker import BreakerSettings
from pipeline.delivery.retry import RetryPolicy
from pipeline.errors import PermanentError, RetryableError, Saturated
from pipeline.record import Batch
from pipeline.runtime.clock import FakeClock
from pipeline.sink import Written
from tests.pipeline.rig import Rig, ledger_row, run_all
from tests.pipeline.stand import Stand
from tests.pipeline.support import PATIENCE_S, ScriptedSink, record, records, spec


class SlowSink(ScriptedSink):
    """Each write takes so many seconds of the test's clock; `begun` are released as they begin."""

    def __init__(self, clock: FakeClock, takes_s: float) -> None:
        super().__init__()
        self._clock = clock
        self._takes_s = takes_s
        self._waits = threading.Condition()
        self.begun = threading.Semaphore(0)

    def write(self, batch: Batch) -> Written | None:
        due = self._clock.monotonic() + self._takes_s
        self.begun.release()
        with self._waits:
            while (left := due - self._clock.monotonic()) > 1e-9:
                self._clock.wait(self._waits, left)
        return super().write(batch)


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    stand = Stand(tmp_path)
    yield stand
    stand.end()


def closed(rig: Rig) -> list[tuple[int, str]]:
    return [(one.records, one.reason) for one in rig.signals.closed]


def test_25_items_in_tens_are_two_size_flushes_and_five_on_close(rig: Rig) -> None:
    sink = ScriptedSink()
    engine = rig.start(spec(sink, max_records=10, max_wait_s=3600))
    for one in records(25):
        rig.offer([one])
    rig.signals.wait_for(lambda s: len(s.settled) == 2)
    assert closed(rig) == [(10, "size"), (10, "size")]
    assert engine.stop(5.0)
    assert closed(rig) == [(10, "size"), (10, "size"), (5, "shutdown")]
    assert set(sink.stored.values()) == {1}


def test_three_items_and_100_ms_are_one_time_flush(rig: Rig) -> None:
    rig.start(spec(ScriptedSink(), max_records=10, max_wait_s=0.1))
    for one in records(3):
        last = rig.offer([one])
    rig.clock.await_waiting(1)
    rig.clock.advance(0.099)
    rig.clock.await_waiting(1)
    assert closed(rig) == []
    rig.clock.advance(0.002)
    assert last.wait(PATIENCE_S)
    assert closed(rig) == [(3, "time")]


def test_every_flush_says_whether_size_time_or_shutdown_closed_it(rig: Rig) -> None:
    engine = rig.start(spec(ScriptedSink(), max_records=10, max_wait_s=0.1))
    rig.offer(records(10))
    rig.signals.wait_for(lambda s: len(s.settled) == 1)
    late = rig.offer(records(4))
    rig.clock.await_waiting(1)
    rig.clock.advance(0.101)
    assert late.wait(PATIENCE_S)
    rig.offer(records(10))
    rig.signals.wait_for(lambda s: len(s.settled) == 3)
    rig.offer(records(2))
    assert engine.stop(5.0)
    assert closed(rig) == [(10, "size"), (4, "time"), (10, "size"), (2, "shutdown")]
    assert rig.pipeline()["flushes"] == {"size": 2, "time": 1, "shutdown": 1}


def test_no_aliasing_between_a_flushed_batch_and_the_next(rig: Rig) -> None:
    """A sink that changes and empties the records it was given harms nothing that comes after."""
    seen: list[list[str]] = []

    def spoil(batch: Batch) -> None:
        seen.append([one.message for one in batch.records])
        for one in batch.records:
            one.message = "spoilt"
        batch.records.clear()

    rig.start(spec(ScriptedSink(always=spoil), max_records=10))
    of = records(30)
    rig.offer(of)
    rig.signals.wait_for(lambda s: len(s.attempts) == 3)
    assert seen == [[one.message for one in of[i : i + 10]] for i in (0, 10, 20)]


def test_a_bounded_input_of_16_is_never_exceeded_and_the_blocked_time_is_measured(
    rig: Rig,
) -> None:
    """16 offers of 3 into room for 16, of which the sink frees 4 each 100 ms: 800 ms of waiting."""
    sink = SlowSink(rig.clock, 0.1)
    engine = rig.start(
        spec(
            sink,
            max_records=4,
            max_wait_s=3600,
            capacity_records=16,
            high_watermark=1.0,
            low_watermark=1.0,
        )
    )
    (pipeline,) = engine.pipelines
    held: list[int] = []
    blocked_s: list[float] = []
    refused: list[float] = []
    blocked = threading.Semaphore(0)

    def produce() -> None:
        for _ in range(16):
            while True:
                try:
                    rig.offer(records(3))
                    break
                except Saturated as refusal:
                    refused.append(refusal.retry_after_s)
                    began = rig.clock.monotonic()
                    blocked.release()
                    assert engine.await_room("log", "t", records=3, timeout_s=60.0) is None
                    blocked_s.append(rig.clock.monotonic() - began)
                finally:
                    held.append(pipeline.admission.held_records)

    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    for _ in range(8):
        assert blocked.acquire(timeout=PATIENCE_S)
        assert sink.begun.acquire(timeout=PATIENCE_S)
        rig.clock.await_waiting(2)  # for the end of the write, and for room
        rig.clock.advance(0.1)
    producer.join(PATIENCE_S)
    assert not producer.is_alive()
    assert max(held) == 16
    assert sum(blocked_s) == pytest.approx(0.8)
    assert len(refused) == len(blocked_s) == 8
    assert all(1 <= seconds <= 60 for seconds in refused)
    for _ in range(4):
        assert sink.begun.acquire(timeout=PATIENCE_S)
        rig.clock.advance(0.1)
    sink.await_stored(48)


@pytest.mark.concurrency
def test_ten_concurrent_closes_all_return_and_store_each_record_once(rig: Rig) -> None:
    sink = ScriptedSink()
    engine = rig.start(spec(sink, max_records=10, max_wait_s=3600))
    for one in records(25):
        rig.offer([one])
    answers: list[bool] = []
    run_all([lambda: answers.append(engine.stop(5.0))] * 10)
    assert answers == [True] * 10
    assert set(sink.stored.values()) == {1}
    assert (sum(sink.stored.values()), sink.opened, sink.closed) == (25, 1, 1)


def test_a_drain_of_200_ms_against_a_sink_of_a_second_reports_the_deadline(rig: Rig) -> None:
    sink = SlowSink(rig.clock, 1.0)
    engine = rig.start(spec(sink, max_records=10))
    rig.offer(records(10))
    assert sink.begun.acquire(timeout=PATIENCE_S)
    answers: list[bool] = []
    draining = threading.Thread(target=lambda: answers.append(engine.drain(0.2)), daemon=True)
    draining.start()
    rig.clock.await_waiting(2)
    rig.clock.advance(0.2)
    draining.join(PATIENCE_S)
    assert answers == [False]
    assert rig.row()["in_flight"] == 10, "late is not lost"
    rig.clock.advance(0.8)
    sink.await_stored(10)


def test_a_drain_of_5_s_against_a_fast_sink_succeeds_without_waiting(rig: Rig) -> None:
    sink = ScriptedSink()
    engine = rig.start(spec(sink, max_records=10, max_wait_s=3600))
    rig.offer(records(25))
    assert engine.drain(5.0), "the clock stands still: it succeeded by itself"
    assert sum(sink.stored.values()) == 25


def test_enqueued_is_flushed_ok_and_failed_and_dropped_on_shutdown(rig: Rig) -> None:
    def write(batch: Batch) -> None:
        kind = batch.records[0].message.partition("-")[0]
        if kind == "bad":
            raise PermanentError("never")
        if kind == "late":
            raise RetryableError("not yet", retry_after_s=3600)

    engine = rig.start(spec(ScriptedSink(always=write), max_records=5))
    for prefix in ("good", "bad", "late"):
        rig.offer(records(5, prefix=prefix))
    rig.signals.wait_for(lambda s: s.stored == 5 and len(s.dropped) == 5 and bool(s.retries))
    assert not engine.stop(0)
    row = rig.row()
    failed, left = row["dropped"]["permanent"], row["dropped"]["shutdown"]
    assert (row["stored"], failed, left) == (5, 5, 5)
    assert row["accepted"] == row["stored"] + failed + left
    assert row["in_flight"] == 0


def test_what_a_shutdown_does_not_flush_is_left_in_the_log_where_there_is_one(
    stand: Stand,
) -> None:
    def write(batch: Batch) -> None:
        if batch.records[0].message.startswith("late"):
            raise RetryableError("not yet", retry_after_s=3600)

    engine = stand.engine(spec(ScriptedSink(always=write), max_records=5))
    for prefix in ("good", "late"):
        engine.offer(type="log", tenant="t", records=records(5, prefix=prefix), durable=True)
    stand.signals.wait_for(lambda s: s.stored == 5 and bool(s.retries))
    assert not engine.stop(1.0)
    row = ledger_row(engine, "a", "t")
    assert (row["accepted"], row["stored"], row["dropped"], row["in_flight"]) == (10, 5, {}, 5)
    heir = ScriptedSink()
    after = stand.engine(spec(heir, max_records=5), adopt_every_s=0.05)
    heir.await_stored(5)
    assert all(message.startswith("late") for message in heir.stored)
    assert after.stop(PATIENCE_S)


def test_fails_twice_then_succeeds_with_five_tries_and_ten_milliseconds(rig: Rig) -> None:
    sink = ScriptedSink(OSError("one"), OSError("two"))
    policy = RetryPolicy(base_s=0.01, cap_s=0.01, max_attempts=5)
    rig.start(spec(sink, max_records=1, retry=policy))
    done = rig.offer(records(1))
    for failures in (1, 2):
        rig.signals.wait_for(lambda s, n=failures: len(s.retries) == n)  # type: ignore[misc]
        rig.clock.advance(0.011)
    assert done.wait(PATIENCE_S)
    assert [one.attempt for one in rig.signals.attempts] == [1, 2, 3]
    assert all(0 <= one.delay_s <= 0.01 for one in rig.signals.retries)
    assert (rig.row()["stored"], rig.row()["dropped"], done.unstored) == (1, {}, 0)


def test_retries_stop_at_the_deadline(rig: Rig) -> None:
    """No attempt begins at or after it, and the records end with their reason."""
    policy = RetryPolicy(base_s=1.0, cap_s=1.0, max_age_s=3.0)
    began: list[float] = []

    def fail(batch: Batch) -> None:
        began.append(rig.clock.monotonic())
        raise OSError("down")

    unbroken = BreakerSettings(enabled=False)
    rig.start(spec(ScriptedSink(always=fail), max_records=2, retry=policy, breaker=unbroken))
    done = rig.offer(records(2))
    for failures in itertools.count(1):
        rig.signals.wait_for(lambda s, n=failures: len(s.retries) == n or bool(s.dropped))  # type: ignore[misc]
        if rig.signals.dropped:
            break
        rig.clock.advance(rig.signals.retries[-1].delay_s + 0.001)
    assert done.wait(PATIENCE_S)
    assert len(began) >= 3
    assert began[-1] - began[0] < 3.0
    assert rig.row()["dropped"] == {"age": 2}
    assert done.unstored == 2


def test_the_run_loop_never_waits_for_a_slow_sink(rig: Rig) -> None:
    """While a write hangs, offers return, batches close at their time and others are written."""
    sink = rig.held_sink()
    rig.start(spec(sink, max_records=2, max_wait_s=0.1, min_workers=2, max_workers=2))
    rig.offer(records(2))
    sink.await_writes(1)
    rig.offer(records(1))
    rig.clock.await_waiting(1)
    rig.clock.advance(0.101)
    sink.await_writes(2)
    assert closed(rig) == [(2, "size"), (1, "time")]
    rig.offer(records(4))
    assert rig.pipeline()["held_records"] == 7
    sink.let_go()
    sink.await_stored(7)


def test_order_within_a_tenant_is_kept_and_only_that_tenant_is_held_back(rig: Rig) -> None:
    """A's first batch fails: its second waits for it, B's does not; nothing overtakes."""
    failed = threading.Event()

    def write(batch: Batch) -> None:
        if batch.records[0].message == "a-0" and not failed.is_set():
            failed.set()
            raise RetryableError("not yet", retry_after_s=10.0)

    sink = ScriptedSink(always=write)
    rig.start(
        spec(
            sink,
            max_records=2,
            min_workers=3,
            max_workers=3,
            ordered=True,
            partition_by="tenant",
        )
    )
    rig.offer([record("a-0"), record("a-1")], tenant="a")
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    later = rig.offer([record("a-2"), record("a-3")], tenant="a")
    for start in (0, 2):
        of = [record(f"b-{start}"), record(f"b-{start + 1}")]
        assert rig.offer(of, tenant="b").wait(PATIENCE_S)
    assert sorted(sink.stored) == ["b-0", "b-1", "b-2", "b-3"]
    assert not later.done
    rig.clock.advance(10.1)
    assert later.wait(PATIENCE_S)
    order: dict[str, list[str]] = defaultdict(list)
    for message in (one for batch in sink.messages for one in batch):
        order[message[0]].append(message)
    assert order == {one: [f"{one}-{n}" for n in range(4)] for one in "ab"}
