"""The figures: plain JSON values that agree with one another."""

from __future__ import annotations

import json

import pytest

from pipeline.engine import Engine
from pipeline.ids import RecordIds
from tests.pipeline.rig import Rig, imbalances, run_all
from tests.pipeline.support import PATIENCE_S, ScriptedSink, records, spec


def test_the_figures_are_json_and_name_what_an_operator_asks_for(rig: Rig) -> None:
    sink = rig.held_sink()
    rig.start(spec(sink, key="k1", name="db", max_records=2, capacity_records=100))
    rig.offer(records(2))
    sink.await_writes(1)
    rig.clock.advance(5)
    rig.offer(records(1))
    stats = json.loads(json.dumps(rig.engine.stats()))
    (shown,) = stats["pipelines"]
    assert {
        "key": "k1",
        "name": "db",
        "state": "running",
        "required": True,
        "paused": False,
        "capacity_records": 100,
        "held_records": 3,
        "in_flight": 3,
        "workers": 1,
        "busy_workers": 1,
        "accepted": 3,
        "stored": 0,
        "oldest_s": 5,
    }.items() <= shown.items()
    (row,) = stats["ledger"]
    assert (row["sink"], row["tenant"], row["in_flight"], row["imbalance"]) == ("db", "t", 3, 0)
    (worker,) = stats["workers"]
    assert (worker["pipeline"], worker["worker"], worker["busy"]) == ("db", "sink-db-1", True)
    assert stats["log_id"] == "log"


def test_the_oldest_record_is_the_oldest_held_anywhere(rig: Rig) -> None:
    sink = ScriptedSink(always=OSError("down"))
    rig.start(spec(sink, max_records=1, paused=True))
    assert rig.pipeline()["oldest_s"] == 0
    rig.offer(records(1))
    rig.clock.advance(7)
    assert rig.pipeline()["oldest_s"] == 7
    rig.engine.configure([spec(sink, max_records=1)])
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    assert rig.pipeline()["oldest_s"] == 7, "in a batch that waits for its next attempt"


def test_write_latencies_are_quantiles_of_the_recent_attempts(rig: Rig) -> None:
    seconds = iter([0.1] * 98 + [2.0, 5.0])
    sink = ScriptedSink(always=lambda batch: rig.clock.advance(next(seconds)))
    rig.start(spec(sink, max_records=1))
    for _ in range(100):
        assert rig.offer(records(1)).wait(PATIENCE_S)
    rig.signals.wait_for(lambda s: len(s.settled) == 100)
    latency = rig.pipeline()["write_latency"]
    assert latency["p50"] == latency["p95"] == pytest.approx(0.1)
    assert latency["p99"] == pytest.approx(2.0)
    assert rig.pipeline()["writes"] == 100
    assert rig.pipeline()["write_seconds_sum"] == pytest.approx(98 * 0.1 + 7)


def test_a_sink_that_is_gone_keeps_its_row_of_the_ledger_and_its_name(rig: Rig) -> None:
    rig.start(spec(ScriptedSink(), key="key", name="name", max_records=1))
    assert rig.offer(records(1)).wait(PATIENCE_S)
    rig.engine.configure([])
    stats = rig.engine.stats()
    assert stats["pipelines"] == []
    assert rig.row("name")["stored"] == 1


@pytest.mark.concurrency
def test_figures_taken_while_sinks_come_and_go_are_always_in_balance() -> None:
    engine = Engine(log_id="log", ids=RecordIds(node=1))
    sinks = [spec(ScriptedSink(), key=f"s{n}", max_records=2, max_wait_s=0.001) for n in range(5)]
    engine.configure(sinks[:1])
    engine.start()

    def configure() -> None:
        for n in range(80):
            engine.configure([sinks[0], *sinks[1 + n % 4 :]])

    def offer() -> None:
        for _ in range(200):
            engine.offer(type="log", tenant="t", records=records(1))

    def watch() -> None:
        for _ in range(200):
            assert imbalances(engine) == {}

    run_all([configure, offer, offer, watch])
    assert engine.stop(PATIENCE_S)
    assert imbalances(engine) == {}
