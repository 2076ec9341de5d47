"""A pipeline's life: started, changed, paused, flushed, drained, stopped under a hanging sink."""

from __future__ import annotations

import threading

import pytest

from pipeline.errors import RetryableError
from pipeline.settings import PipelineSettings
from tests.pipeline.rig import Rig
from tests.pipeline.support import PATIENCE_S, ScriptedSink, records, spec


def test_a_batch_closes_at_its_time_without_another_offer(rig: Rig) -> None:
    sink = ScriptedSink()
    rig.start(spec(sink, max_wait_s=0.2))
    done = rig.offer(records(3))
    rig.clock.await_waiting(1)
    rig.clock.advance(0.19)
    assert not done.done
    rig.clock.advance(0.011)
    assert done.wait(PATIENCE_S)
    assert [c.reason for c in rig.signals.closed] == ["time"]


def test_idle_workers_wait_for_the_oldest_record_not_for_each_offer(rig: Rig) -> None:
    rig.start(spec(ScriptedSink(), max_wait_s=0.2, min_workers=3, max_workers=3))
    first = rig.offer(records(1))
    rig.clock.advance(0.15)
    second = rig.offer(records(1))
    rig.clock.advance(0.0501)
    assert first.wait(PATIENCE_S)
    assert second.wait(PATIENCE_S)
    assert [(c.reason, c.records) for c in rig.signals.closed] == [("time", 2)]


def test_a_paused_sink_holds_its_records_and_delivers_them_when_resumed(rig: Rig) -> None:
    sink = ScriptedSink()
    rig.start(spec(sink, paused=True, max_records=2))
    done = rig.offer(records(2))
    rig.clock.advance(100)
    shown = rig.pipeline()
    assert (shown["state"], shown["in_flight"], sink.batches) == ("paused", 2, [])
    rig.engine.configure([spec(sink, max_records=2)])
    assert done.wait(PATIENCE_S)
    assert rig.pipeline()["state"] == "running"


def test_a_paused_sink_finishes_what_it_writes_and_does_not_try_again(rig: Rig) -> None:
    sink = ScriptedSink(OSError("reset"))
    rig.start(spec(sink, max_records=1))
    rig.offer(records(1))
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    rig.engine.configure([spec(sink, max_records=1, paused=True)])
    rig.clock.advance(3600)
    rig.clock.await_waiting(1)
    assert len(rig.signals.attempts) == 1
    rig.engine.configure([spec(sink, max_records=1)])
    sink.await_stored(1)


def test_a_misconfigured_sink_holds_its_records_until_it_is_repaired(rig: Rig) -> None:
    def broken() -> ScriptedSink:
        raise AssertionError("a misconfigured sink is not even made")

    rig.start(spec(broken, misconfigured="no such driver", max_records=2))
    done = rig.offer(records(2))
    shown = rig.pipeline()
    assert (shown["state"], shown["misconfigured"]) == ("misconfigured", "no such driver")
    assert rig.row()["in_flight"] == 2
    rig.engine.configure([spec(ScriptedSink(), max_records=2, fingerprint="2")])
    assert done.wait(PATIENCE_S)


def test_a_changed_fingerprint_swaps_the_sink_and_tries_at_once_what_waits(rig: Rig) -> None:
    old = ScriptedSink(always=RetryableError("wrong password", retry_after_s=3600))
    new = ScriptedSink()
    rig.start(spec(old, max_records=2))
    done = rig.offer(records(2))
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    rig.engine.configure([spec(new, max_records=2, fingerprint="2")])
    assert done.wait(PATIENCE_S)
    assert (old.closed, len(old.batches), len(new.batches)) == (1, 0, 1)


def test_what_the_old_sink_was_writing_when_it_was_swapped_is_tried_at_once(rig: Rig) -> None:
    old, new = rig.held_sink(), ScriptedSink()
    rig.start(spec(old, max_records=2))
    done = rig.offer(records(2))
    old.await_writes(1)
    rig.engine.configure([spec(new, max_records=2, fingerprint="2")])
    old.abort()  # the write fails long after the swap
    assert done.wait(PATIENCE_S), "the clock stands still: it waited for no back-off"
    assert (len(new.stored), old.closed) == (2, 1)


def test_the_same_specs_again_change_nothing(rig: Rig) -> None:
    sink = ScriptedSink()
    one = spec(sink, max_records=1)
    rig.start(one)
    assert rig.offer(records(1)).wait(PATIENCE_S)
    (before,) = rig.engine.pipelines
    rig.engine.configure([spec(sink, max_records=1)])
    assert rig.engine.pipelines == [before]
    assert before.spec is one
    assert rig.offer(records(1)).wait(PATIENCE_S)
    assert (sink.opened, sink.closed) == (1, 0)


def test_changed_batch_settings_count_at_once(rig: Rig) -> None:
    sink = ScriptedSink()
    rig.start(spec(sink, max_records=100, max_wait_s=3600))
    done = rig.offer(records(4))
    rig.engine.configure([spec(sink, name="renamed", max_records=4, max_wait_s=3600)])
    assert done.wait(PATIENCE_S)
    assert rig.pipeline("renamed")["flushes"] == {"size": 1}


def test_changed_worker_limits_count_at_once(rig: Rig) -> None:
    sink = ScriptedSink()
    rig.start(spec(sink, min_workers=1, max_workers=1))
    (pipeline,) = rig.engine.pipelines
    rig.engine.configure([spec(sink, min_workers=3, max_workers=3)])
    assert len(pipeline.workers) == 3
    rig.engine.configure([spec(sink, min_workers=1, max_workers=1)])
    rig.signals.wait_for(lambda s: len(s.ended) == 2)
    rig.clock.await_waiting(1)
    assert len(pipeline.workers) == 1


def test_idle_workers_leave_one_by_one_down_to_the_least(rig: Rig) -> None:
    sink = ScriptedSink()
    rig.start(spec(sink, max_records=1, min_workers=3, max_workers=3))
    (pipeline,) = rig.engine.pipelines
    rig.clock.await_waiting(3)
    rig.engine.configure([spec(sink, max_records=1, min_workers=1, max_workers=3)])
    for left in (2, 1):
        rig.clock.await_waiting(left + 1)
        rig.clock.advance(3)
        pipeline.scale()
        gone = 3 - left
        rig.signals.wait_for(lambda s, gone=gone: len(s.ended) == gone)  # type: ignore[misc]
    rig.clock.advance(3)
    pipeline.scale()
    assert [(s.step, s.workers) for s in rig.signals.scalings] == [(-1, 2), (-1, 1)]
    assert rig.pipeline()["workers"] == 1
    assert rig.offer(records(1)).wait(PATIENCE_S)


def test_a_flush_sends_what_is_held_and_goes_on(rig: Rig) -> None:
    sink = ScriptedSink()
    engine = rig.start(spec(sink, max_wait_s=3600))
    rig.offer(records(3))
    assert engine.flush(PATIENCE_S)
    assert len(sink.stored) == 3
    rig.offer(records(2))
    assert rig.pipeline()["held_records"] == 2
    assert engine.flush(PATIENCE_S)
    assert engine.flush(0), "nothing is held"


def test_a_flush_of_a_sink_that_hangs_returns_at_its_time(rig: Rig) -> None:
    sink = rig.held_sink()
    engine = rig.start(spec(sink, max_records=1))
    rig.offer(records(1))
    sink.await_writes(1)
    got: list[bool] = []
    flushing = threading.Thread(target=lambda: got.append(engine.flush(5.0)))
    flushing.start()
    rig.clock.await_waiting(1)
    rig.clock.advance(5.1)
    flushing.join(PATIENCE_S)
    assert got == [False]


def test_the_settings_of_a_pipeline_are_checked_when_made() -> None:
    with pytest.raises(ValueError, match="max_workers"):
        PipelineSettings(min_workers=2, max_workers=1)
