"""One sink's path: retries that hold no worker, poison isolated, every end in the ledger."""

from __future__ import annotations

import pytest

from pipeline.delivery.retry import RetryPolicy
from pipeline.errors import PartialFailure, PermanentError, RetryableError, SinkFault
from pipeline.record import Batch
from pipeline.sink import Written
from tests.pipeline.rig import Rig
from tests.pipeline.support import PATIENCE_S, ScriptedSink, record, records, spec


def test_a_failure_is_tried_again_after_its_backoff_and_not_before(rig: Rig) -> None:
    sink = ScriptedSink(OSError("reset"))
    rig.start(spec(sink, max_records=1, retry=RetryPolicy(base_s=5.0, cap_s=5.0)))
    done = rig.offer(records(1))
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    delay = rig.signals.retries[0].delay_s
    assert 0 <= delay <= 5
    rig.clock.advance(delay * 0.99)
    assert sink.batches == []
    rig.clock.advance(delay * 0.01 + 0.001)
    assert done.wait(PATIENCE_S)
    assert rig.pipeline()["retries"] == 1


def test_fails_twice_then_succeeds_with_five_tries_and_ten_milliseconds(rig: Rig) -> None:
    sink = ScriptedSink(OSError("one"), OSError("two"))
    rig.start(spec(sink, max_records=1, retry=RetryPolicy(base_s=0.01, cap_s=0.01, max_attempts=5)))
    done = rig.offer(records(1))
    for failures in (1, 2):
        rig.signals.wait_for(lambda s, n=failures: len(s.retries) == n)  # type: ignore[misc]
        rig.clock.advance(0.011)
    assert done.wait(PATIENCE_S)
    assert [one.attempt for one in rig.signals.attempts] == [1, 2, 3]
    assert rig.row()["stored"] == 1


def test_retries_stop_at_the_deadline_and_the_records_are_dropped_with_that_reason(
    rig: Rig,
) -> None:
    policy = RetryPolicy(base_s=1.0, cap_s=1.0, max_age_s=3.0)
    rig.start(spec(ScriptedSink(always=OSError("down")), max_records=2, retry=policy))
    done = rig.offer(records(2))
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    rig.clock.advance(3)
    assert done.wait(PATIENCE_S)
    assert rig.row()["dropped"] == {"age": 2}
    assert done.unstored == 2
    rig.signals.wait_for(lambda s: len(s.dropped) == 1)
    (dropped,) = rig.signals.dropped
    assert (dropped.reason, len(dropped.messages)) == ("age", 2)


def test_a_batch_that_waits_for_its_next_try_holds_no_worker(rig: Rig) -> None:
    """The one worker delivers a second batch while the first waits; nothing moves the clock."""
    sink = ScriptedSink(RetryableError("busy", retry_after_s=60))
    rig.start(spec(sink, max_records=2, max_workers=1))
    first = rig.offer(records(2))
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    second = rig.offer(records(2))
    assert second.wait(PATIENCE_S)
    assert not first.done
    rig.clock.advance(61)
    assert first.wait(PATIENCE_S)


def test_what_waits_for_a_failing_sink_is_bounded_and_the_backlog_stays_in_the_log(
    rig: Rig,
) -> None:
    sink = ScriptedSink(always=RetryableError("down", retry_after_s=60))
    engine = rig.start(spec(sink, max_records=10, min_workers=3, max_workers=3))
    for _ in range(30):
        rig.offer(records(10))
    rig.signals.wait_for(lambda s: len(s.retries) >= 3)
    rig.clock.await_waiting(3)  # every worker has looked and found nothing to do
    (pipeline,) = engine.pipelines
    waiting = len(pipeline._state.backlog.waiting)
    assert 3 <= waiting < 3 + 3, "fewer than three waited when each of three workers looked"
    assert pipeline._state.backlog.own.waiting_records == 300 - 10 * waiting
    assert rig.row()["in_flight"] == 300
    sink.heal()
    rig.clock.advance(61)
    sink.await_stored(300)
    assert set(sink.stored.values()) == {1}


def test_a_full_batch_that_fails_is_offered_again_as_it_was(rig: Rig) -> None:
    sink = ScriptedSink(OSError("one"))
    rig.start(spec(sink, max_records=3, max_wait_s=3600))
    of = records(3)
    rig.offer(of)
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    rig.offer(records(2))
    rig.clock.advance(2)
    sink.await_stored(3)
    assert sink.messages[0] == [r.message for r in of]
    assert [a.number for a in rig.signals.attempts] == [1, 1]
    assert [c.number for c in rig.signals.closed] == [1], "a retry is no new batch"


def poison(batch: Batch) -> None:
    if any(r.message.startswith("poison") for r in batch.records):
        raise PermanentError("a record can never be stored")


def test_one_poison_among_5000_is_dropped_alone_and_its_neighbours_are_stored(rig: Rig) -> None:
    sink = ScriptedSink(always=poison)
    rig.start(spec(sink, max_records=5000))
    good = records(4999)
    done = rig.offer([*good[:1234], record("poison"), *good[1234:]])
    assert done.wait(PATIENCE_S)
    assert sink.stored == dict.fromkeys((r.message for r in good), 1)
    row = rig.row()
    assert (row["stored"], row["dropped"], row["in_flight"]) == (4999, {"permanent": 1}, 0)
    rig.signals.wait_for(lambda s: len(s.dropped) == 1)
    assert rig.signals.dropped[0].messages == ("poison",)
    assert len(rig.signals.attempts) <= 27, "two a level of halving"
    assert len(rig.signals.closed) == 1
    assert rig.pipeline()["flushes"] == {"size": 1}
    assert rig.engine.journal.manifest.entries("a") == {}


def test_the_neighbours_of_poison_have_all_their_attempts(rig: Rig) -> None:
    """A passing fault after twelve halvings must not find the attempts used up."""
    faults = iter([OSError("a passing fault")])

    def write(batch: Batch) -> None:
        poison(batch)
        if batch.count == 1 and (fault := next(faults, None)):
            raise fault

    sink = ScriptedSink(always=write)
    rig.start(spec(sink, max_records=64, retry=RetryPolicy(base_s=1, cap_s=1, max_attempts=2)))
    done = rig.offer([record("poison"), *records(63)])
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    rig.clock.advance(2)
    assert done.wait(PATIENCE_S)
    assert rig.row()["dropped"] == {"permanent": 1}
    assert len(sink.stored) == 63


def test_a_batch_of_nothing_but_poison_ends_record_by_record(rig: Rig) -> None:
    rig.start(spec(ScriptedSink(always=PermanentError("bad")), max_records=33))
    assert rig.offer(records(33)).wait(PATIENCE_S)
    assert rig.row()["dropped"] == {"permanent": 33}
    assert len(rig.signals.attempts) == 2 * 33 - 1


def test_a_partial_failure_drops_its_indexes_and_stores_the_rest(rig: Rig) -> None:
    sink = ScriptedSink(PartialFailure({0: "no user", 3: "too long"}))
    rig.start(spec(sink, max_records=5))
    first, second = records(3), records(2)
    rig.offer(first, tenant="a")
    done = rig.offer(second, tenant="b")
    assert done.wait(PATIENCE_S)
    assert (rig.row(tenant="a")["stored"], rig.row(tenant="a")["dropped"]) == (2, {"permanent": 1})
    assert (rig.row(tenant="b")["stored"], rig.row(tenant="b")["dropped"]) == (1, {"permanent": 1})
    rig.signals.wait_for(lambda s: len(s.dropped) == 2)
    assert [(one.tenant, one.messages) for one in rig.signals.dropped] == [
        ("a", (first[0].message,)),
        ("b", (second[0].message,)),
    ]
    assert (done.unstored, rig.signals.settled[0].stored) == (1, 3)


@pytest.mark.parametrize("error", [PartialFailure({9: "?"}), SystemExit(3), SinkFault("no table")])
def test_a_strange_sink_loses_neither_its_batch_nor_its_worker(
    rig: Rig, error: BaseException
) -> None:
    sink = ScriptedSink(error)
    rig.start(spec(sink, max_records=2, retry=RetryPolicy(base_s=1, cap_s=1, max_attempts=9)))
    done = rig.offer(records(2))
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    assert rig.row()["in_flight"] == 2
    rig.clock.advance(2)
    assert done.wait(PATIENCE_S)
    assert (rig.row()["stored"], rig.pipeline()["workers"]) == (2, 1)


def test_records_that_were_there_already_are_counted_as_such_by_tenant(rig: Rig) -> None:
    sink = ScriptedSink(lambda batch: Written(stored=1, already_stored=4))
    rig.start(spec(sink, max_records=5))
    rig.offer(records(2), tenant="a")
    done = rig.offer(records(3), tenant="b")
    assert done.wait(PATIENCE_S)
    a, b = rig.row(tenant="a"), rig.row(tenant="b")
    assert a["already_stored"] + b["already_stored"] == 4
    assert a["stored"] + b["stored"] == 1
    assert rig.pipeline()["already_stored"] == 4


def test_an_error_is_shown_until_an_attempt_succeeds(rig: Rig) -> None:
    sink = ScriptedSink(OSError("connection refused"))
    rig.start(spec(sink, max_records=1))
    done = rig.offer(records(1))
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    shown = rig.pipeline()
    assert (shown["state"], shown["last_error"]) == ("failing", "OSError: connection refused")
    assert shown["last_error_at"] == rig.clock.time_us() / 1e6
    rig.clock.advance(2)
    assert done.wait(PATIENCE_S)
    assert (rig.pipeline()["state"], rig.pipeline()["failures"]) == ("running", 1)


def test_the_run_loop_never_waits_for_a_slow_sink(rig: Rig) -> None:
    """A write that hangs holds one worker; the next full batch gets another."""
    sink = rig.held_sink()
    rig.start(spec(sink, max_records=2, min_workers=3, max_workers=3))
    for writes in (1, 2, 3):
        rig.offer(records(2))
        sink.await_writes(writes)
    rig.offer(records(2))
    shown = rig.pipeline()
    assert (shown["workers"], shown["busy_workers"], shown["held_records"]) == (3, 3, 8)
    sink.let_go()
    sink.await_stored(8)
