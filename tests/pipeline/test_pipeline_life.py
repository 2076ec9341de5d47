"""A pipeline's life: started, changed, paused, flushed, drained, stopped under a hanging sink."""

from __future__ import annotations

import threading

import pytest

from pipeline.errors import Draining, RetryableError
from pipeline.settings import PipelineSettings
from tests.pipeline.support import PATIENCE_S, HeldSink, Rig, ScriptedSink, records, spec


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


def test_idle_workers_retire_down_to_the_least(rig: Rig) -> None:
    sink = rig.held_sink()
    rig.start(spec(sink, max_records=1, min_workers=1, max_workers=3, idle_worker_s=60))
    for writes in (1, 2, 3):
        rig.offer(records(1))
        sink.await_writes(writes)
    sink.let_go()
    sink.await_stored(3)
    rig.clock.await_waiting(3)
    rig.clock.advance(61)
    rig.signals.wait_for(lambda s: len(s.ended) == 2)
    rig.clock.await_waiting(1)
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


def test_a_drain_refuses_the_new_and_delivers_the_old(rig: Rig) -> None:
    sink = ScriptedSink()
    engine = rig.start(spec(sink, max_wait_s=3600))
    rig.offer(records(3))
    assert engine.drain(PATIENCE_S)
    assert [c.reason for c in rig.signals.closed] == ["shutdown"]
    with pytest.raises(Draining):
        rig.offer(records(1))
    assert isinstance(engine.refusal("log", "t"), Draining)
    row = rig.row()
    assert row["accepted"] == row["stored"] == 3


def test_a_drain_tries_once_more_what_was_backing_off(rig: Rig) -> None:
    sink = ScriptedSink(RetryableError("busy", retry_after_s=3600))
    engine = rig.start(spec(sink, max_records=2))
    rig.offer(records(2))
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    assert engine.drain(PATIENCE_S)
    assert len(sink.stored) == 2


def test_a_sink_that_fails_in_a_drain_is_tried_every_second(rig: Rig) -> None:
    sink = ScriptedSink(*[RetryableError("busy", retry_after_s=3600)] * 3)
    engine = rig.start(spec(sink, max_records=2))
    rig.offer(records(2))
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    got: list[bool] = []
    draining = threading.Thread(target=lambda: got.append(engine.drain(30)))
    draining.start()
    for tries in (2, 3):
        rig.signals.wait_for(lambda s, n=tries: len(s.retries) == n)  # type: ignore[misc]
        rig.clock.advance(1.0)
    draining.join(PATIENCE_S)
    assert got == [True]
    assert [one.delay_s for one in rig.signals.retries[1:]] == [1.0, 1.0]


@pytest.mark.parametrize("state", ["paused", "misconfigured", "not started"])
def test_a_drain_does_not_wait_for_a_sink_that_will_not_move(rig: Rig, state: str) -> None:
    one = spec(
        ScriptedSink(),
        max_records=1,
        paused=state == "paused",
        misconfigured="broken" if state == "misconfigured" else "",
    )
    rig.engine.configure([one])
    if state != "not started":
        rig.engine.start()
    rig.offer(records(1))
    assert not rig.engine.drain(3600), "the clock stands still: it returned by itself"
    assert not rig.engine.stop(3600)
    assert rig.row()["dropped"] == {"shutdown": 1}


def stop_at_the_deadline(rig: Rig, sink: HeldSink) -> bool:
    """Stop an engine whose one write hangs, advancing the clock to the deadline."""
    got: list[bool] = []
    stopping = threading.Thread(target=lambda: got.append(rig.engine.stop(10.0)))
    stopping.start()
    rig.clock.await_waiting(1)  # drains
    rig.clock.advance(9.0)
    rig.clock.await_waiting(1)  # lets the write end
    assert sink.aborted == 0
    rig.clock.advance(0.5)
    sink.wait_for(lambda: sink.aborted == 1)
    rig.clock.advance(0.5)  # past the deadline: it waits no longer, whatever hangs
    stopping.join(PATIENCE_S)
    assert not stopping.is_alive()
    return got[0]


def test_a_stop_returns_at_its_deadline_and_names_the_thread_that_hangs(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    sink = rig.held_sink(obeys_abort=False)
    rig.start(spec(sink, name="db", max_records=2))
    done = rig.offer(records(2))
    sink.await_writes(1)
    rig.offer(records(1))
    assert not stop_at_the_deadline(rig, sink)
    assert "thread sink-db-1 did not end" in caplog.text
    row = rig.row("db")
    assert (row["in_flight"], row["dropped"]) == (2, {"shutdown": 1})
    assert sink.closed == 0, "not while it is written to"
    sink.let_go()
    sink.wait_for(lambda: sink.closed == 1)
    assert done.wait(PATIENCE_S)
    row = rig.row("db")
    assert (row["stored"], row["in_flight"]) == (2, 0)


def test_a_write_that_fails_long_after_the_stop_drops_its_batch_and_counts_it(rig: Rig) -> None:
    sink = rig.held_sink(obeys_abort=False)
    rig.start(spec(sink, max_records=2))
    done = rig.offer(records(2))
    sink.await_writes(1)
    assert not stop_at_the_deadline(rig, sink)
    assert rig.row()["in_flight"] == 2
    sink.let_go(failing=True)
    assert done.wait(PATIENCE_S)
    row = rig.row()
    assert (row["in_flight"], row["dropped"], done.unstored) == (0, {"shutdown": 2}, 2)


def test_an_aborted_write_ends_its_thread_and_its_batch_is_dropped_and_counted(rig: Rig) -> None:
    sink = rig.held_sink()
    rig.start(spec(sink, max_records=2))
    done = rig.offer(records(2))
    sink.await_writes(1)
    assert not stop_at_the_deadline(rig, sink)
    rig.signals.wait_for(lambda s: len(s.ended) == 1)
    row = rig.row()
    assert (row["in_flight"], row["dropped"]) == (0, {"shutdown": 2})
    assert (done.done, done.unstored) == (True, 2)
    assert rig.engine.journal.manifest.entries("a") == {}


def test_a_drain_of_200_ms_against_a_slow_sink_reports_the_deadline(rig: Rig) -> None:
    sink = rig.held_sink()
    engine = rig.start(spec(sink, max_records=1))
    rig.offer(records(1))
    sink.await_writes(1)
    got: list[bool] = []
    draining = threading.Thread(target=lambda: got.append(engine.drain(0.2)))
    draining.start()
    rig.clock.await_waiting(1)
    rig.clock.advance(0.2)
    draining.join(PATIENCE_S)
    assert got == [False]


def test_a_drain_of_five_seconds_against_a_fast_sink_succeeds(rig: Rig) -> None:
    engine = rig.start(spec(ScriptedSink(), max_records=10))
    for _ in range(25):
        rig.offer(records(7))
    assert engine.drain(5.0)
    row = rig.row()
    assert row["accepted"] == row["stored"] == 175


def test_the_settings_of_a_pipeline_are_checked_when_made() -> None:
    with pytest.raises(ValueError, match="max_workers"):
        PipelineSettings(min_workers=2, max_workers=1)
