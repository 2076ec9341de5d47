"""What one sink's trouble must not do to others: to their time, their records, their workers."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest

from pipeline.errors import SinkFault
from pipeline.record import Batch
from pipeline.runtime.signals import Signals
from tests.pipeline.rig import Rig
from tests.pipeline.support import PATIENCE_S, ScriptedSink, record, records, spec


@pytest.mark.parametrize("idle", [{"paused": True}, {"misconfigured": "no such backend"}])
def test_a_sink_that_cannot_deliver_costs_the_others_no_time_at_a_stop(
    rig: Rig, idle: dict[str, Any]
) -> None:
    healthy = ScriptedSink()
    # Enough batches that the healthy sink has some left when the idle one is looked at.
    rig.start(
        spec(ScriptedSink(), key="a-idle", name="idle", **idle),
        spec(healthy, key="b", name="healthy", max_records=10),
    )
    rig.offer(records(2000))
    stopped = threading.Thread(target=rig.engine.stop, args=(20.0,))
    stopped.start()
    stopped.join(PATIENCE_S)
    assert not stopped.is_alive()
    assert len(healthy.stored) == 2000
    assert rig.row("idle")["dropped"] == {"shutdown": 2000}


def test_stored_is_not_said_of_what_no_sink_takes(rig: Rig) -> None:
    rig.start(spec(ScriptedSink(), required=False))
    done = rig.offer(records(3))
    assert done.done
    assert done.unstored == 3


def test_an_error_inside_the_engine_costs_neither_the_worker_nor_the_batch(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sink = ScriptedSink()
    engine = rig.start(spec(sink, max_records=2))
    (pipeline,) = engine.pipelines
    verdicts = pipeline._consumer._verdicts
    finish, broken = verdicts.finish, threading.Event()

    def finish_badly(*args: Any) -> None:
        if not broken.is_set():
            broken.set()
            raise RuntimeError("nobody thought of this")
        finish(*args)

    monkeypatch.setattr(verdicts, "finish", finish_badly)
    done = rig.offer(records(2))
    assert broken.wait(PATIENCE_S)
    rig.clock.await_waiting(1)
    assert "broke its worker" in caplog.text
    assert rig.row()["in_flight"] == 2
    rig.clock.advance(2)
    assert done.wait(PATIENCE_S)
    assert rig.row()["imbalance"] == 0


def attempted(wanted: int, signals: Signals) -> bool:
    return len(signals.attempts) >= wanted


def test_a_batch_that_alone_keeps_failing_is_taken_apart_and_its_neighbours_are_stored(
    rig: Rig,
) -> None:
    def suspect(batch: Batch) -> None:
        if any(r.message.startswith("poison") for r in batch.records):
            raise SinkFault("string is too long")

    sink = ScriptedSink(always=suspect)
    engine = rig.start(spec(sink, max_records=4, max_workers=1))
    good = records(3)
    rig.offer([*good, record("poison")])
    rig.signals.wait_for(lambda s: len(s.retries) >= 1)
    rig.clock.advance(0.001)
    others = rig.offer(records(4))
    assert others.wait(PATIENCE_S)
    while not all(one.message in sink.stored for one in good):
        wanted = len(rig.signals.attempts) + 1
        rig.clock.advance(31)
        rig.signals.wait_for(partial(attempted, wanted))
        rig.clock.await_waiting(1)
    assert rig.row()["in_flight"] == 1, "the record that nobody can store waits; it is not dropped"
    (pipeline,) = engine.pipelines
    assert pipeline.state == "failing"


def test_discarding_a_sinks_backlog_is_counted_and_leaves_other_sinks_alone(rig: Rig) -> None:
    kept = ScriptedSink()
    engine = rig.start(
        spec(ScriptedSink(), key="gone", name="gone", paused=True),
        spec(kept, key="kept", name="kept", max_records=5),
    )
    done = rig.offer(records(5))
    kept.await_stored(5)
    engine.discard("gone")
    engine.discard("nobody has this key")
    assert done.wait(PATIENCE_S)
    assert rig.row("gone")["dropped"] == {"sink_removed": 5}


def test_a_paused_sink_that_is_removed_delivers_what_it_holds(rig: Rig) -> None:
    sink = ScriptedSink()
    engine = rig.start(spec(sink, paused=True, max_records=5))
    rig.offer(records(5))
    engine.configure([])
    sink.await_stored(5)


def test_a_misconfigured_sink_that_is_removed_says_what_it_could_not_deliver(rig: Rig) -> None:
    engine = rig.start(spec(ScriptedSink(), misconfigured="no such backend"))
    done = rig.offer(records(5))
    engine.configure([])
    assert done.wait(PATIENCE_S)
    assert done.unstored == 5


def test_an_optional_sink_keeps_its_backlog_when_dropping_it_would_make_no_room(rig: Rig) -> None:
    sink = rig.held_sink()
    rig.start(
        spec(
            sink,
            required=False,
            max_records=80,
            max_wait_s=3600,
            capacity_records=100,
            max_workers=1,
        )
    )
    rig.offer(records(80))
    sink.await_writes(1)
    rig.offer(records(15))
    rig.offer(records(30))
    assert rig.row()["dropped"] == {"backlog": 30}
    sink.let_go()


def test_a_sink_that_hangs_while_closing_holds_up_no_change_of_it(rig: Rig) -> None:
    closing, go_on = threading.Event(), threading.Event()

    class HangsAtTheEnd(ScriptedSink):
        def close(self) -> None:
            closing.set()
            assert go_on.wait(PATIENCE_S)

    engine = rig.start(spec(HangsAtTheEnd(), max_records=1))
    assert rig.offer(records(1)).wait(PATIENCE_S)
    second = ScriptedSink()
    changed = threading.Thread(
        target=engine.configure, args=([spec(second, max_records=1, fingerprint="other")],)
    )
    changed.start()
    changed.join(PATIENCE_S)
    assert not changed.is_alive()
    assert closing.is_set()
    assert rig.offer(records(1)).wait(PATIENCE_S)
    assert len(second.stored) == 1
    go_on.set()


def test_a_write_that_fails_after_its_sink_was_given_up_is_not_tried_again(rig: Rig) -> None:
    sink = rig.held_sink()
    engine = rig.start(spec(sink, key="gone", name="gone", max_records=5))
    done = rig.offer(records(5))
    sink.await_writes(1)
    engine.discard("gone")
    engine.configure([])
    sink.let_go(failing=True)
    assert done.wait(PATIENCE_S)
    assert rig.row("gone")["dropped"] == {"sink_removed": 5}
