"""An engine's life: any order of start, stop and configuration; sinks that leave and come back."""

from __future__ import annotations

import threading

import pytest

from pipeline.engine import Engine
from pipeline.errors import Draining, NoSink, RetryableError
from pipeline.ids import RecordIds
from pipeline.log.frame import Frame
from pipeline.log.log import Log
from pipeline.pipeline import Pipeline
from tests.pipeline.rig import Rig, ledger_row
from tests.pipeline.support import PATIENCE_S, ScriptedSink, records, spec


def test_starting_and_stopping_twice_is_the_same_as_once(rig: Rig) -> None:
    sink = ScriptedSink()
    engine = rig.start(spec(sink, max_records=1))
    engine.start()
    assert rig.pipeline()["workers"] == 1
    assert rig.offer(records(1)).wait(PATIENCE_S)
    assert engine.stop(10)
    assert engine.stop(10)
    engine.start()
    assert (sink.opened, sink.closed, rig.pipeline()["workers"]) == (1, 1, 0)
    assert rig.pipeline()["state"] == "stopped"


def test_a_stop_before_the_start_ends_it_for_good(rig: Rig) -> None:
    rig.engine.configure([spec(ScriptedSink())])
    rig.offer(records(2))
    assert not rig.engine.stop(10), "two records were lost"
    rig.engine.start()
    with pytest.raises(Draining):
        rig.offer(records(1))
    assert rig.pipeline()["workers"] == 0
    assert rig.row()["dropped"] == {"shutdown": 2}


def test_a_drain_before_the_start_keeps_it_from_starting(rig: Rig) -> None:
    rig.engine.configure([spec(ScriptedSink())])
    assert rig.engine.drain(10)
    rig.engine.start()
    assert rig.pipeline()["workers"] == 0


def test_a_configuration_after_the_stop_adds_nothing_that_runs(rig: Rig) -> None:
    rig.start()
    assert rig.engine.stop(10)
    rig.engine.configure([spec(ScriptedSink())])
    assert rig.engine.pipelines == []


def test_a_drain_can_be_repaired_by_a_changed_sink(rig: Rig) -> None:
    old = ScriptedSink(always=RetryableError("wrong address"))
    new = ScriptedSink()
    engine = rig.start(spec(old, max_records=2))
    rig.offer(records(2))
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    got: list[bool] = []
    draining = threading.Thread(target=lambda: got.append(engine.drain(PATIENCE_S)))
    draining.start()
    rig.signals.wait_for(lambda s: len(s.retries) == 2)
    engine.configure([spec(new, max_records=2, fingerprint="2"), spec(new, key="late")])
    draining.join(PATIENCE_S)
    assert (got, len(new.stored)) == ([True], 2)
    assert [p.key for p in engine.pipelines] == ["a"]


def test_a_removed_sink_takes_nothing_new_delivers_what_it_holds_and_ends(rig: Rig) -> None:
    gone, stays = rig.held_sink(), ScriptedSink()
    engine = rig.start(spec(gone, key="gone", max_records=2), spec(stays, key="b", max_records=1))
    done = rig.offer(records(5))
    gone.await_writes(1)
    engine.configure([spec(stays, key="b", max_records=1)])
    (retired,) = engine.retired
    assert (retired.state, rig.pipeline("gone")["state"]) == ("retiring", "retiring")
    rig.offer(records(1))
    assert ledger_row(engine, "gone", "t")["accepted"] == 5
    gone.let_go()
    assert done.wait(PATIENCE_S)
    gone.wait_for(lambda: gone.closed == 1)
    assert engine.retired == []
    assert ledger_row(engine, "gone", "t")["stored"] == 5
    assert [c.reason for c in rig.signals.closed if c.sink == "gone"][-1] == "shutdown"


def test_a_removed_sink_that_holds_nothing_ends_at_once(rig: Rig) -> None:
    sink = ScriptedSink()
    engine = rig.start(spec(sink, max_records=1))
    assert rig.offer(records(1)).wait(PATIENCE_S)
    engine.configure([])
    rig.signals.wait_for(lambda s: len(s.ended) == 1)
    assert (engine.retired, sink.closed) == ([], 1)
    assert rig.row()["stored"] == 1


def test_a_sink_removed_before_the_start_delivers_after_it(rig: Rig) -> None:
    sink, other = ScriptedSink(), ScriptedSink()
    rig.engine.configure([spec(sink, max_wait_s=3600)])
    done = rig.offer(records(3))
    rig.engine.configure([spec(other, key="b")])
    rig.engine.start()
    assert done.wait(PATIENCE_S)
    assert len(sink.stored) == 3


def test_a_sink_that_comes_back_goes_on_with_what_it_held(rig: Rig) -> None:
    sink = ScriptedSink(always=RetryableError("down", retry_after_s=3600))
    engine = rig.start(spec(sink, max_records=2))
    first = rig.offer(records(3))
    rig.signals.wait_for(lambda s: len(s.retries) >= 1)
    (before,) = engine.pipelines
    engine.configure([])
    assert engine.retired == [before]
    new = ScriptedSink()
    engine.configure([spec(new, max_records=2, fingerprint="2")])
    assert engine.pipelines == [before], "two would share one cursor"
    second = rig.offer(records(3))
    assert engine.flush(PATIENCE_S)
    assert first.wait(PATIENCE_S)
    assert second.wait(PATIENCE_S)
    assert (len(new.stored), set(new.stored.values())) == (6, {1})
    assert rig.row()["stored"] == 6
    assert rig.pipeline()["state"] == "running"


def test_a_sink_that_comes_back_after_its_end_is_a_new_one(rig: Rig) -> None:
    sink = ScriptedSink()
    engine = rig.start(spec(sink, max_records=1))
    assert rig.offer(records(1)).wait(PATIENCE_S)
    (before,) = engine.pipelines
    engine.configure([])
    assert engine.retired == []
    engine.configure([spec(sink, max_records=1)])
    assert engine.pipelines != [before]
    assert rig.offer(records(1)).wait(PATIENCE_S)
    assert rig.row()["stored"] == 2


def test_an_offer_under_way_when_its_sink_is_removed_is_still_delivered(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The removal comes between the reservation and the append, and must not end the pipeline."""
    sink, other = ScriptedSink(), ScriptedSink()
    engine = rig.start(spec(sink, max_records=1), spec(other, key="b", max_records=1))
    append = Log.append

    def removed_just_before(log: Log, frame: Frame, *, durable: bool) -> bool:
        engine.configure([spec(other, key="b", max_records=1)])
        assert [p.key for p in engine.retired] == ["a"]
        return append(log, frame, durable=durable)

    with monkeypatch.context() as patch:
        patch.setattr(Log, "append", removed_just_before)
        done = rig.offer(records(1))
    assert done.wait(PATIENCE_S)
    assert len(sink.stored) == 1
    sink.wait_for(lambda: sink.closed == 1)
    assert rig.offer(records(1)).wait(PATIENCE_S)
    assert ledger_row(engine, "a", "t")["accepted"] == 1


def test_an_offer_routed_before_a_removal_is_routed_anew(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = rig.start(spec(ScriptedSink(), max_records=1))
    stale, find = engine._targets("log", "t"), Engine._targets
    engine.configure([])
    routes = iter([stale])  # what a thread on its way found before the removal

    def targets(of: Engine, type: str, tenant: str) -> tuple[Pipeline, ...]:
        return next(routes, None) or find(of, type, tenant)

    monkeypatch.setattr(Engine, "_targets", targets)
    with pytest.raises(NoSink):
        rig.offer(records(1))
    assert engine.stats()["ledger"] == []


def test_an_offer_that_appends_after_the_stop_is_dropped_and_counted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = rig.start(spec(ScriptedSink(), max_records=1))
    append = Log.append

    def stopped_just_before(log: Log, frame: Frame, *, durable: bool) -> bool:
        engine.stop(0)
        return append(log, frame, durable=durable)

    monkeypatch.setattr(Log, "append", stopped_just_before)
    done = rig.offer(records(3))
    assert done.done
    assert done.unstored == 3
    assert rig.row()["dropped"] == {"shutdown": 3}


def test_a_refused_offer_ends_the_retirement_it_was_waited_for(rig: Rig) -> None:
    engine = rig.start(spec(ScriptedSink()), spec(ScriptedSink(), key="b"))
    a, _ = engine.pipelines
    a.admission.reserve(1, 10, tenant="t")
    engine.configure([spec(ScriptedSink(), key="b")])
    assert engine.retired == [a]
    a.give_back(1, 10, tenant="t")
    assert engine.retired == []


def test_an_engine_on_the_machines_clock_runs_and_stops() -> None:
    sink = ScriptedSink()
    engine = Engine(log_id="log", ids=RecordIds(node=0))
    engine.configure([spec(sink, max_wait_s=0)])
    engine.start()
    assert engine.log_id == "log"
    done = engine.offer(type="log", tenant="t", records=records(3))
    assert done.wait(PATIENCE_S)
    assert engine.stop(PATIENCE_S)
    assert ledger_row(engine, "a", "t")["stored"] == 3
