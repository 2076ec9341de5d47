"""The engine's autoscaler at work: its thread, its rhythm, its end. On the machine's own clock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.delivery.autoscaler import AutoscaleSettings
from pipeline.engine import Engine
from pipeline.errors import Refused
from pipeline.ids import RecordIds
from pipeline.runtime.signals import Signals
from pipeline.sink import Sink
from pipeline.spec import PipelineSpec
from tests.pipeline.rig import imbalances, run_all
from tests.pipeline.support import PATIENCE_S, HeldSink, ScriptedSink, records, spec

OFTEN = AutoscaleSettings(interval_s=0.02, cooldown_s=0.0)


@pytest.fixture
def signals() -> Signals:
    return Signals()


@pytest.fixture
def engine(signals: Signals) -> Iterator[Engine]:
    engine = Engine(log_id="log", ids=RecordIds(node=1))
    engine.observe(signals)
    yield engine
    engine.stop(PATIENCE_S)


def small(sink: Sink, **settings: Any) -> PipelineSpec:
    few = {"max_records": 10, "capacity_records": 1000, "max_workers": 4}
    return spec(sink, **{**few, "autoscale": OFTEN, **settings})


def offer(engine: Engine, count: int) -> None:
    for _ in range(count):
        engine.offer(type="log", tenant="t", records=records(10))


def test_workers_come_under_pressure_and_leave_when_it_is_over(
    engine: Engine, signals: Signals
) -> None:
    sink = HeldSink()
    engine.configure([small(sink)])
    engine.start()
    offer(engine, 70)
    signals.wait_for(lambda s: len(s.scalings) == 3)
    sink.await_writes(4)
    sink.let_go()
    sink.await_stored(700)
    signals.wait_for(lambda s: len(s.ended) == 3)
    signals.wait_for(lambda s: len(s.scalings) == 6)
    assert [(s.pipeline, s.step, s.workers) for s in signals.scalings] == [
        ("a", 1, 2),
        ("a", 1, 3),
        ("a", 1, 4),
        ("a", -1, 3),
        ("a", -1, 2),
        ("a", -1, 1),
    ]
    (pipeline,) = engine.pipelines
    assert len(pipeline.workers) == 1
    offer(engine, 1)
    sink.await_stored(710)


def test_the_watchdog_goes_on_to_the_next_pipeline(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.configure([small(ScriptedSink(), key="first"), small(ScriptedSink(), key="second")])
    first, second = engine.pipelines
    looked: list[str] = []

    def breaks() -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(first, "look", breaks)
    monkeypatch.setattr(second, "look", lambda: looked.append("second"))
    engine._look()
    assert looked == ["second"]


def test_a_sink_that_needs_none_does_not_slow_another_ones_growth(
    engine: Engine, signals: Signals
) -> None:
    """Each pipeline has a rhythm of its own; one thread keeps them all."""
    held, calm = HeldSink(), ScriptedSink()
    engine.configure(
        [small(calm, key="calm", autoscale=AutoscaleSettings(interval_s=3600.0)), small(held)]
    )
    engine.start()
    offer(engine, 70)
    signals.wait_for(lambda s: len(s.scalings) == 3)
    held.let_go()
    assert {one.pipeline for one in signals.scalings} == {"a"}


def test_a_shorter_interval_counts_at_once(engine: Engine, signals: Signals) -> None:
    sink = HeldSink()
    engine.configure([small(sink, autoscale=AutoscaleSettings(interval_s=3600.0))])
    engine.start()
    offer(engine, 70)
    sink.await_writes(1)
    engine.configure([small(sink)])
    signals.wait_for(lambda s: len(s.scalings) == 3)
    sink.let_go()


def test_the_autoscaler_can_be_ended_alone_and_the_workers_stay(
    engine: Engine, signals: Signals
) -> None:
    before = set(threading.enumerate())
    sink = HeldSink()
    engine.configure([small(sink)])
    engine.start()
    offer(engine, 70)
    signals.wait_for(lambda s: len(s.scalings) == 3)
    assert "autoscaler" in {t.name for t in threading.enumerate() if t not in before}
    assert engine.stop_scaling(PATIENCE_S)
    assert engine.stop_scaling(PATIENCE_S)
    assert "autoscaler" not in {t.name for t in threading.enumerate() if t not in before}
    sink.let_go()
    assert engine.drain(PATIENCE_S)
    (pipeline,) = engine.pipelines
    assert len(pipeline.workers) == 4
    assert engine.stop(PATIENCE_S)
    assert pipeline.workers == []


def test_a_stop_leaves_no_thread_of_the_engine(engine: Engine, signals: Signals) -> None:
    before = set(threading.enumerate())
    sink = ScriptedSink()
    engine.configure([small(sink, min_workers=2)])
    engine.start()
    offer(engine, 10)
    assert engine.stop(PATIENCE_S)
    left = [t.name for t in threading.enumerate() if t not in before and t.name != "watchdog"]
    assert left == []


@pytest.mark.concurrency
@pytest.mark.parametrize("seed", range(3))
def test_growing_shrinking_changing_and_stopping_at_once_lose_nothing(seed: int) -> None:
    engine = Engine(log_id="log", ids=RecordIds(node=1))
    sink = ScriptedSink()
    eager = AutoscaleSettings(interval_s=0.001, cooldown_s=0.0, up=0.02, down=0.01)
    engine.configure([small(sink, autoscale=eager)])
    engine.start()
    (pipeline,) = engine.pipelines
    accepted: list[int] = []

    def offers() -> None:
        for _ in range(300):
            try:
                engine.offer(type="log", tenant="t", records=records(7))
                accepted.append(7)
            except Refused:
                pass

    def looks() -> None:
        for _ in range(300):
            pipeline.scale()

    def changes() -> None:
        for number in range(60):
            least = 1 + (number + seed) % 3
            engine.configure([small(sink, autoscale=eager, min_workers=least)])
            assert len(pipeline.workers) <= 4

    run_all([offers, offers, looks, looks, changes])
    run_all([lambda: engine.stop(PATIENCE_S), looks, changes])
    assert imbalances(engine) == {}
    assert pipeline.workers == []
    assert sum(sink.stored.values()) == sum(accepted)
    assert set(sink.stored.values()) <= {1}
