"""Breakers, dead letters and the log's files: as metrics and as log lines."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from pipeline.deadletter import DeadLetter
from pipeline.engine import Engine
from pipeline.ids import RecordIds
from pipeline.runtime.clock import FakeClock
from sinks.logs import BatchLog
from sinks.metrics import EngineMetrics
from sinks.metricset import Metrics


def letter(number: int, *, reason: str = "permanent") -> DeadLetter:
    return DeadLetter(
        sink="key",
        sink_name="db",
        record_id=number,
        type="log",
        tenant="t",
        request_id="",
        traceparent="",
        received_us=0,
        timestamp_us=0,
        severity=9,
        service="",
        message="m",
        trace_id="",
        span_id="",
        payload=b"{}",
        reason=reason,
        error="value too long",
        attempts=1,
        first_tried_us=0,
        last_tried_us=0,
        batch_id="log-1",
    )


def stats(**changes: Any) -> dict[str, Any]:
    pipeline = {
        "key": "key",
        "name": "db",
        "held_records": 0,
        "held_bytes": 0,
        "workers": 1,
        "hung_workers": [],
        "breaker": {"state": "closed", "trips": 0},
        **changes.pop("pipeline", {}),
    }
    return {"pipelines": [pipeline], "ledger": [], "log": {}, **changes}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> EngineMetrics:
    engine = Engine(log_id="log", ids=RecordIds(node=1))
    return EngineMetrics(engine, into=Metrics(registry), clock=FakeClock())


@pytest.fixture
def value(registry: CollectorRegistry) -> Any:
    return lambda name, **labels: registry.get_sample_value(name, labels)


def test_the_breaker_is_a_number_and_its_trips_are_counted_once(
    metrics: EngineMetrics, value: Any
) -> None:
    for state, number, trips in (("open", 2, 1), ("half_open", 1, 1), ("open", 2, 2)):
        for _ in range(2):
            metrics.refresh(stats(pipeline={"breaker": {"state": state, "trips": trips}}))
        assert value("breaker_state", sink="db") == number
        assert value("breaker_trips_total", sink="db") == trips
    metrics.breaker_changed("db", "closed", "")
    assert value("breaker_state", sink="db") == 0
    metrics.refresh({"pipelines": [], "ledger": []})
    assert value("breaker_state", sink="db") == 0


def test_a_sink_that_is_gone_has_no_open_breaker(metrics: EngineMetrics, value: Any) -> None:
    opened = {"breaker": {"state": "open", "trips": 1}, "hung_workers": ["sink-db-1"]}
    metrics.refresh(stats(pipeline=opened))
    assert value("hung_workers", sink="db") == 1
    metrics.refresh({"pipelines": [], "ledger": []})
    assert value("breaker_state", sink="db") == 0
    assert value("hung_workers", sink="db") == 0


def test_dead_letters_are_counted_by_reason(metrics: EngineMetrics, value: Any) -> None:
    metrics.records_dead_lettered("db", [letter(1), letter(2), letter(3, reason="age")])
    assert value("dead_letters_total", sink="db", reason="permanent") == 2
    assert value("dead_letters_total", sink="db", reason="age") == 1


def test_the_log_is_measured(metrics: EngineMetrics, value: Any) -> None:
    metrics.log_synced(3, 600, 0.0004)
    metrics.log_failed("No space left on device")
    log = {"bytes": 4096, "segments": 2, "cache_bytes": 512, "left_records": 40}
    old = {"log_id": "old", "bytes": 1, "segments": 1, "left_records": 1, "corrupt_frames": 5}
    for adopted, torn in (([old], 2), ([old], 3), ([], 3)):
        metrics.refresh(
            stats(log={**log, "adopted": adopted, "corrupt_frames": 1, "torn_frames": torn})
        )
        assert value("wal_adopted_logs") == len(adopted)
        assert value("log_left_records") == 40 + len(adopted)
    assert value("wal_bytes") == 4096
    assert value("wal_segments") == 2
    assert value("wal_cache_bytes") == 512
    assert value("log_left_records") == 40
    assert value("wal_corrupt_frames_total") == 4 + 5
    assert value("wal_errors_total") == 1
    assert value("wal_fsync_seconds_count") == 1
    assert value("wal_fsync_seconds_bucket", le="0.0005") == 1
    assert value("wal_fsync_frames_sum") == 3


def test_damage_of_a_log_that_is_delivered_within_a_second_is_counted(
    metrics: EngineMetrics, value: Any
) -> None:
    for _ in range(2):
        metrics.log_finished("old", {"log_id": "old", "corrupt_frames": 1, "torn_frames": 2})
    assert value("wal_corrupt_frames_total") == 3


def test_figures_of_an_engine_without_files_are_enough(metrics: EngineMetrics, value: Any) -> None:
    one = {"key": "key", "name": "db", "held_records": 0, "held_bytes": 0, "workers": 0}
    metrics.refresh({"pipelines": [one], "ledger": []})
    assert value("breaker_state", sink="db") == 0
    assert value("wal_bytes") == 0


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(line.levelno, line.getMessage()) for line in caplog.records]


def test_breakers_adoptions_and_dead_letters_are_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = BatchLog()
    log.breaker_changed("db", "open", "connection refused")
    log.breaker_changed("db", "half_open", "")
    log.breaker_changed("db", "closed", "")
    log.log_adopted("old", 1200)
    log.records_dead_lettered("db", [letter(n) for n in range(1000)])
    log.records_dead_lettered("db", [])
    levels = [level for level, _ in said(caplog)]
    assert levels == [logging.ERROR, logging.INFO, *[logging.WARNING] * 3]
    opened, *_, adopted, dead = caplog.records
    assert (vars(opened)["sink"], vars(opened)["cause"]) == ("db", "connection refused")
    assert (vars(adopted)["log_id"], vars(adopted)["records"]) == ("old", 1200)
    assert vars(dead)["reasons"] == {"permanent": 1000}
    assert len(vars(dead)["record_ids"]) == 5


def test_a_log_that_fails_is_said_once_a_minute_and_when_it_works_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock = FakeClock()
    log = BatchLog(clock=clock)
    log.log_synced(1, 100, 0.001)
    for _ in range(100):
        log.log_failed("No space left on device")
    assert [level for level, _ in said(caplog)] == [logging.ERROR]
    clock.advance(61)
    log.log_failed("No space left on device")
    assert len(said(caplog)) == 2
    log.log_synced(1, 100, 0.001)
    log.log_synced(1, 100, 0.001)
    assert said(caplog)[2:] == [(logging.WARNING, "the log is written again")]
