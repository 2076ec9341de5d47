"""Threads that race on one engine: whatever the order, it ends and every record is counted."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial

import pytest

from pipeline.engine import Engine
from pipeline.errors import Refused
from pipeline.ids import RecordIds
from tests.pipeline.rig import imbalances, run_all
from tests.pipeline.support import PATIENCE_S, ScriptedSink, records, spec


@pytest.mark.concurrency
@pytest.mark.parametrize("seed", range(8))
def test_start_stop_drain_flush_and_configure_in_any_order_from_many_threads(seed: int) -> None:
    """Whatever the order: it ends, no thread is left, and every record accepted is counted."""
    chance = random.Random(seed)
    engine = Engine(log_id="log", ids=RecordIds(node=1))
    sinks = [ScriptedSink(), ScriptedSink()]
    specs = [
        spec(sink, key=key, max_records=3, max_workers=2, max_wait_s=0.001)
        for key, sink in zip("ab", sinks, strict=True)
    ]
    accepted: list[int] = []

    def offer() -> None:
        for _ in range(60):
            try:
                accepted.append(engine.offer(type="log", tenant="t", records=records(2)).count)
            except Refused:
                pass

    actions: list[Callable[[], object]] = [
        engine.start,
        partial(engine.configure, specs),
        partial(engine.configure, specs[:1]),
        partial(engine.flush, 0.01),
        partial(engine.drain, 0.01),
        partial(engine.stop, 0.05),
        engine.start,
        offer,
        offer,
        offer,
    ]
    chance.shuffle(actions)
    engine.configure(specs)
    run_all(actions)
    engine.stop(PATIENCE_S)
    assert imbalances(engine) == {}
    for pipeline in [*engine.pipelines, *engine.retired]:
        assert pipeline.workers == []
    for key, sink in zip("ab", sinks, strict=True):
        rows = [r for r in engine.stats()["ledger"] if r["sink"] == key]  # type: ignore[attr-defined]
        for row in rows:
            assert row["in_flight"] == 0
            assert row["accepted"] == row["stored"] + sum(row["dropped"].values())
        assert sum(row["stored"] for row in rows) == sum(sink.stored.values())
        assert set(sink.stored.values()) <= {1}
        assert sink.opened == sink.closed


@pytest.mark.concurrency
@pytest.mark.parametrize("workers", [1, 3])
def test_no_append_is_missed_by_workers_that_are_going_to_sleep(workers: int) -> None:
    """Each offer is waited for before the next: one missed call would hang it for a minute."""
    engine = Engine(log_id="log", ids=RecordIds(node=1))
    sink = ScriptedSink()
    engine.configure([spec(sink, max_wait_s=0, min_workers=workers, max_workers=workers)])
    engine.start()

    def offer() -> None:
        for _ in range(400):
            done = engine.offer(type="log", tenant="t", records=records(1))
            assert done.wait(PATIENCE_S / 4), "nobody came for it"

    run_all([offer] * 3)
    assert engine.stop(PATIENCE_S)
    assert sum(sink.stored.values()) == 1200


@pytest.mark.concurrency
@pytest.mark.parametrize("seed", range(4))
def test_offers_that_race_with_removals_and_the_stop_lose_nothing_uncounted(seed: int) -> None:
    engine = Engine(log_id="log", ids=RecordIds(node=1))
    kept, flickering = ScriptedSink(), ScriptedSink()
    always = spec(kept, key="kept", max_records=7, max_wait_s=0.001)
    sometimes = spec(flickering, key="flickering", max_records=5, max_wait_s=0.001)
    engine.configure([always, sometimes])
    engine.start()
    accepted: list[int] = []
    finished = threading.Event()

    def offer(tenant: str) -> None:
        for _ in range(150):
            try:
                engine.offer(type="log", tenant=tenant, records=records(3))
                accepted.append(3)
            except Refused:
                if finished.is_set():
                    return

    def flicker() -> None:
        chance = random.Random(seed)
        for _ in range(60):
            engine.configure([always, sometimes] if chance.random() < 0.5 else [always])
            assert imbalances(engine) == {}

    def stop() -> None:
        for _ in range(20):
            assert imbalances(engine) == {}
        finished.set()
        engine.stop(PATIENCE_S)

    run_all([partial(offer, "x"), partial(offer, "y"), partial(offer, "z"), flicker, stop])
    assert imbalances(engine) == {}
    rows = engine.stats()["ledger"]
    by_sink = {key: [r for r in rows if r["sink"] == key] for key in ("kept", "flickering")}  # type: ignore[attr-defined]
    assert sum(r["accepted"] for r in by_sink["kept"]) == sum(accepted)
    assert all(r["in_flight"] == 0 for r in by_sink["kept"] + by_sink["flickering"])
    for key, sink in (("kept", kept), ("flickering", flickering)):
        assert sum(r["stored"] for r in by_sink[key]) == sum(sink.stored.values())
        assert set(sink.stored.values()) <= {1}


@pytest.mark.concurrency
def test_ten_concurrent_stops_all_return_and_store_each_record_once() -> None:
    engine = Engine(log_id="log", ids=RecordIds(node=1))
    sink = ScriptedSink()
    engine.configure([spec(sink, max_records=10, max_wait_s=3600)])
    engine.start()
    for _ in range(25):
        engine.offer(type="log", tenant="t", records=records(1))
    answers: list[bool] = []
    run_all([lambda: answers.append(engine.stop(PATIENCE_S))] * 10)
    assert answers == [True] * 10
    assert sorted(len(messages) for messages in sink.messages) == [5, 10, 10]
    assert set(sink.stored.values()) == {1}
    assert (sink.opened, sink.closed) == (1, 1)


@pytest.mark.concurrency
def test_a_bounded_input_of_16_is_never_exceeded_by_tight_producers() -> None:
    engine = Engine(log_id="log", ids=RecordIds(node=1))
    sink = ScriptedSink()
    engine.configure(
        [
            spec(
                sink,
                max_records=4,
                max_wait_s=0,
                capacity_records=16,
                high_watermark=1.0,
                low_watermark=1.0,
            )
        ]
    )
    engine.start()
    (pipeline,) = engine.pipelines
    held: list[int] = []
    refused: list[float] = []

    def produce() -> None:
        for _ in range(300):
            while True:
                try:
                    engine.offer(type="log", tenant="t", records=records(3))
                    break
                except Refused as refusal:
                    refused.append(refusal.retry_after_s)
                finally:
                    held.append(pipeline.admission.held_records)

    run_all([produce] * 3)
    assert engine.stop(PATIENCE_S)
    assert max(held) <= 16
    assert sum(sink.stored.values()) == 2700
    assert all(1 <= seconds <= 60 for seconds in refused)
    assert pipeline.admission.refused == len(refused)
