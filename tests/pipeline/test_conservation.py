"""The law of conservation, under faults: every record ends once, or is held where it is counted.

accepted + redriven = stored + already_stored + dead_lettered + dropped + in_flight
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from functools import partial
from typing import Any

import pytest

from pipeline.delivery.breaker import BreakerSettings
from pipeline.delivery.retry import RetryPolicy
from pipeline.delivery.verdict import Verdicts
from pipeline.engine import Engine
from pipeline.errors import (
    PartialFailure,
    PermanentError,
    Refused,
    RetryableError,
    SinkFault,
)
from pipeline.ids import RecordIds
from pipeline.intake.router import Route
from pipeline.log.log import Log
from pipeline.record import ERROR, INFO, Batch
from pipeline.sink import Written
from tests.pipeline.rig import Rig, imbalances, run_all
from tests.pipeline.support import PATIENCE_S, ScriptedSink, record, records, spec

PRODUCERS, OFFERS, TENANTS = 4, 120, ("a", "b", "c")
RETRY = RetryPolicy(base_s=0.0001, cap_s=0.001, max_attempts=4)


class FaultySink(ScriptedSink):
    """Fails at random, with every class of error that a sink may raise, before or after storing.

    Keeps a count of its own of what it stored: the outside witness of the ledger.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(always=self.fail)
        self._chance = random.Random(seed)
        self._witness = threading.Lock()
        self.refused: Counter[str] = Counter()

    def fail(self, batch: Batch) -> Written | None:
        with self._witness:
            roll = self._chance.random()
            index = self._chance.randrange(batch.count)
        if any(r.message.startswith("poison") for r in batch.records):
            raise PermanentError("poison")
        if roll < 0.08:
            raise RetryableError("busy", retry_after_s=0.0005)
        if roll < 0.12:
            raise OSError("reset")
        if roll < 0.16:
            raise SinkFault("no such table")
        if roll < 0.20:
            raise PermanentError("one of them")
        if roll < 0.28:
            stored = [r.message for i, r in enumerate(batch.records) if i != index]
            with self._changed:
                self.stored.update(stored)
                self.refused[batch.records[index].message] += 1
            raise PartialFailure({index: "too long"})
        if roll < 0.30:
            raise PartialFailure({batch.count: "nobody"})
        if roll < 0.32:
            return Written(stored=0, already_stored=batch.count)
        return None


def totals(engine: Engine, sink: str) -> Counter[str]:
    total: Counter[str] = Counter()
    rows: Any = engine.stats()["ledger"]
    for row in rows:
        if row["sink"] == sink:
            total.update(
                accepted=row["accepted"],
                stored=row["stored"] + row["already_stored"],
                dropped=sum(row["dropped"].values()),
                in_flight=row["in_flight"],
            )
    return total


@pytest.mark.concurrency
@pytest.mark.parametrize("seed", range(6))
def test_every_record_ends_once_whatever_fails(seed: int) -> None:
    engine = Engine(log_id="log", ids=RecordIds(node=1))
    sinks = {name: FaultySink(seed * 10 + n) for n, name in enumerate(("all", "errors", "lossy"))}
    common = {
        "max_records": 20,
        "max_bytes": 2_000,
        "max_wait_s": 0.001,
        "capacity_records": 200,
        "backlog_max_bytes": 100_000,
        "max_workers": 3,
        "retry": RETRY,
        # Faults come all the time, and so does poison: neither may be waited for here.
        "breaker": BreakerSettings(open_s=0.01),
        "poison_limit": 1.0,
    }
    engine.configure(
        [
            spec(sinks["all"], key="all", **common),  # type: ignore[arg-type]
            spec(sinks["errors"], key="errors", route=Route(min_severity=ERROR), **common),  # type: ignore[arg-type]
            spec(sinks["lossy"], key="lossy", required=False, **common),  # type: ignore[arg-type]
        ]
    )
    engine.start()
    accepted: Counter[str] = Counter()
    counting = threading.Lock()
    producing = threading.Semaphore(0)

    def produce(number: int) -> None:
        chance = random.Random(f"{seed}/{number}")
        for _ in range(OFFERS):
            of = [
                record(
                    f"{'poison' if chance.random() < 0.005 else 'm'}-{chance.getrandbits(60)}",
                    severity=chance.choice((INFO, ERROR)),
                )
                for _ in range(chance.randrange(1, 30))
            ]
            while True:
                try:
                    engine.offer(type="log", tenant=chance.choice(TENANTS), records=of)
                    break
                except Refused:
                    engine.flush(0.01)
            with counting:
                accepted["all"] += len(of)
                accepted["errors"] += sum(r.severity == ERROR for r in of)
        producing.release()

    def watch() -> None:
        finished = 0
        while finished < PRODUCERS:
            finished += producing.acquire(blocking=False)
            assert imbalances(engine) == {}

    run_all([*(partial(produce, n) for n in range(PRODUCERS)), watch])
    assert engine.stop(PATIENCE_S)
    assert imbalances(engine) == {}
    accepted["lossy"] = accepted["all"]
    for name, sink in sinks.items():
        total = totals(engine, name)
        assert total["accepted"] == accepted[name]
        assert total["in_flight"] == 0
        assert total["accepted"] == total["stored"] + total["dropped"]
        assert set(sink.stored.values()) <= {1}, "a record was stored twice"
        # Written(already_stored=…) of the faulty sink did store them: it counts as both.
        assert total["stored"] == sum(sink.stored.values())
        held = next(p for p in engine.pipelines if p.key == name)
        assert (held.admission.held_records, held.admission.held_bytes) == (0, 0)
    assert engine.journal.manifest.entries("all") == {}
    with engine.journal.lock:
        assert list(engine.journal.frames()) == []


def test_enqueued_is_stored_plus_failed_plus_dropped_at_shutdown(rig: Rig) -> None:
    def write(batch: Batch) -> None:
        if batch.records[0].message.startswith("never"):
            raise OSError("down")
        if batch.records[0].message.startswith("bad"):
            raise PermanentError("bad")

    engine = rig.start(spec(ScriptedSink(always=write), max_records=5))
    for prefix in ("good", "bad", "never"):
        rig.offer(records(5, prefix=prefix))
    rig.signals.wait_for(lambda s: len(s.dropped) == 5 and bool(s.retries) and s.stored == 5)
    assert not engine.stop(0)
    row = rig.row()
    assert (row["accepted"], row["stored"], row["in_flight"]) == (15, 5, 0)
    assert row["dropped"] == {"permanent": 5, "shutdown": 5}


@pytest.mark.parametrize("size", [1, 7, 40])
def test_a_batch_lost_on_purpose_shows_as_an_imbalance_of_its_size(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A bug that forgets a batch between the batcher and the sink must not stay hidden."""
    rig.start(spec(ScriptedSink(), max_records=size, max_wait_s=3600))
    assert rig.offer(records(size)).wait(PATIENCE_S)
    finish = Verdicts.finish

    def forget(verdicts: Verdicts, worker: Any, batch: Batch, outcome: Any) -> None:
        with verdicts._state.lock:
            worker.batch = None

    monkeypatch.setattr(Verdicts, "finish", forget)
    rig.offer(records(size))
    rig.signals.wait_for(lambda s: len(s.attempts) == 2)
    rig.clock.await_waiting(1)
    assert imbalances(rig.engine) == {("a", "t"): size}
    monkeypatch.setattr(Verdicts, "finish", finish)
    assert rig.offer(records(size)).wait(PATIENCE_S)
    assert imbalances(rig.engine) == {("a", "t"): size}


def test_a_frame_that_is_never_appended_shows_as_well(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.start(spec(ScriptedSink(), max_wait_s=3600))

    def lose(log: Log, frame: Any, *, durable: bool) -> bool:
        log.ledger.accepted("a", frame.tenant, frame.count)
        frame.position, frame.segment = 0, 0
        return True

    monkeypatch.setattr(Log, "append", lose)
    rig.offer(records(9))
    assert imbalances(rig.engine) == {("a", "t"): 9}


def test_settling_a_batch_twice_shows_as_a_negative_imbalance(rig: Rig) -> None:
    rig.start(spec(ScriptedSink(), max_records=3))
    assert rig.offer(records(3)).wait(PATIENCE_S)
    rig.engine.journal.ledger.stored("a", "t", 3)
    assert imbalances(rig.engine) == {("a", "t"): -3}
