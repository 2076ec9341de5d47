"""Draining and stopping a pipeline: what is still delivered, what is dropped and counted."""

from __future__ import annotations

import threading

import pytest

from pipeline.errors import Draining, RetryableError
from tests.pipeline.rig import Rig
from tests.pipeline.support import PATIENCE_S, HeldSink, ScriptedSink, records, spec


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
