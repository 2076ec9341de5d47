"""The cast of the admin's tests: processes with figures, samples, records, written as rows."""

from __future__ import annotations

import math
import uuid
from datetime import datetime, timedelta
from typing import Any

from django.db import connections
from django.utils import timezone

from control.models import PipelineSample, Process, WorkerRun
from control.partitions import days, tables
from ingest.models import AuditEvent, HealthPing, LogRecord
from pipeline.ids import first_id_at

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>"
SINK = "0b9f2f0e-7f51-4b0c-9d8e-5a1a5f6c7d10"


def pipeline_stats(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "key": SINK,
        "name": "database",
        "state": "running",
        "required": True,
        "paused": False,
        "capacity_records": 400_000,
        "backlog_max_bytes": 128 * 1024 * 1024,
        "held_records": 41_200,
        "held_bytes": 9_300_000,
        "in_flight": 41_200,
        "workers": 3,
        "busy_workers": 2,
        "accepted": 1_041_200,
        "stored": 1_000_000,
        "already_stored": 0,
        "dead_lettered": 0,
        "dropped": {},
        "refused": 0,
        "flushes": {"size": 200, "time": 12},
        "retries": 0,
        "failures": 0,
        "last_error": "",
        "last_error_at": None,
        "write_latency": {"p50": 0.018, "p95": 0.041, "p99": 0.073},
        "oldest_s": 0.21,
        "breaker": {"state": "closed", "opened_at": None, "retry_in_s": 0.0, "trips": 0},
        "hung_workers": [],
    }
    return {**data, **changes}


def log_stats(**changes: Any) -> dict[str, Any]:
    """What an engine says of its log."""
    data: dict[str, Any] = {
        "log_id": "a1b2c3",
        "directory": "/var/lib/collector/wal/a1b2c3",
        "state": "ok",
        "error": "",
        "fsync": "group",
        "bytes": 48 * 1024 * 1024,
        "segments": 3,
        "appended_frames": 1_041,
        "appended_bytes": 231_000_000,
        "fsyncs": 400,
        "fsync_seconds_sum": 0.2,
        "fsync_p99_s": 0.0031,
        "cache_bytes": 9_300_000,
        "corrupt_frames": 0,
        "torn_frames": 0,
        "quarantined_bytes": 0,
        "adopted": [],
        "unreadable": {},
        "left_records": 41_200,
    }
    return {**data, **changes}


def adopted_log(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "log_id": "d4e5f6",
        "state": "delivering",
        "left_records": 1_200,
        "bytes": 16 * 1024 * 1024,
        "segments": 1,
        "adopted_at": timezone.now().timestamp() - 30,
        "corrupt_records": 0,
        "ledger": [ledger_row(sink="database", accepted=1_200, stored=0, in_flight=1_200)],
    }
    return {**data, **changes}


def open_breaker(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "state": "open",
        "opened_at": timezone.now().timestamp() - 61,
        "retry_in_s": 12.0,
        "trips": 3,
        "cause": "connection refused",
    }
    return {**data, **changes}


def ledger_row(**changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "sink": SINK,
        "tenant": "default",
        "accepted": 1_041_200,
        "redriven": 0,
        "stored": 1_000_000,
        "already_stored": 0,
        "dead_lettered": 0,
        "dropped": {},
        "in_flight": 41_200,
        "imbalance": 0,
    }
    return {**row, **changes}


def make_process(*, now: datetime | None = None, **changes: Any) -> Process:
    now = now or timezone.now()
    values: dict[str, Any] = {
        "id": uuid.uuid4(),
        "role": "server",
        "host": "ops-1",
        "pid": 4711,
        "version": "0.1.0",
        "log_id": "a1b2c3",
        "started_at": now - timedelta(hours=3, minutes=12),
        "last_seen_at": now - timedelta(seconds=2),
        "stats": {"pipelines": [pipeline_stats()], "log": log_stats(), "alarms": []},
        "ledger": [ledger_row()],
    }
    return Process.objects.create(**{**values, **changes})


def make_samples(process: Process, *, now: datetime | None = None, **changes: Any) -> None:
    """15 minutes of samples, a wave with a gap of a minute."""
    now = now or timezone.now()
    rows = []
    for step in range(182):
        at = now - timedelta(seconds=5 * step)
        if 110 <= step < 122:
            continue
        wave = 1 + 0.35 * math.sin(step / 14) + 0.1 * math.sin(step / 3)
        values: dict[str, Any] = {
            "process": process,
            "key": SINK,
            "name": "database",
            "at": at,
            "interval_s": 5.0,
            "accepted": int(60_000 * wave),
            "stored": int(58_000 * wave),
            "held_records": int(40_000 * wave),
            "capacity_records": 400_000,
            "held_bytes": int(9_000_000 * wave),
            "workers": 3,
            "batches": 12,
            "write_p50_s": 0.018 * wave,
            "write_p95_s": 0.041 * wave,
            "write_p99_s": 0.07 * wave,
        }
        rows.append(PipelineSample(**{**values, **changes}))
    PipelineSample.objects.bulk_create(rows)


def make_worker_runs(process: Process, *, count: int = 3) -> None:
    for number in range(count):
        WorkerRun.objects.create(
            process=process,
            pipeline="database",
            worker=f"database-{number}",
            started_at=process.started_at + timedelta(seconds=number),
            records=340_000,
            batches=85,
            failures=number,
        )


def us(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)


def record_id(moment: datetime, sequence: int = 0) -> int:
    return first_id_at(us(moment)) + sequence


def _make_room(model: Any, pk: int) -> None:
    """The day's partition, in the test's own transaction and unknown to the process's memory."""
    tables.create(connections["records"], model._meta.db_table, [days.day_of(pk)])


def make_log(*, ago_s: float = 10, sequence: int = 0, **changes: Any) -> LogRecord:
    at = timezone.now() - timedelta(seconds=ago_s)
    values: dict[str, Any] = {
        "id": record_id(at, sequence),
        "timestamp": at,
        "received_at": at,
        "tenant": "default",
        "level": "INFO",
        "service": "checkout",
        "message": "order placed",
        "trace_id": "",
        "span_id": "",
        "payload": {"message": "order placed"},
    }
    values |= changes
    _make_room(LogRecord, values["id"])
    return LogRecord.objects.create(**values)


def make_ping(*, ago_s: float = 10, **changes: Any) -> HealthPing:
    at = timezone.now() - timedelta(seconds=ago_s)
    values: dict[str, Any] = {
        "id": record_id(at),
        "timestamp": at,
        "received_at": at,
        "tenant": "default",
        "service": "checkout",
        "status": "up",
        "latency_ms": 12.5,
        "payload": {"status": "up"},
    }
    values |= changes
    _make_room(HealthPing, values["id"])
    return HealthPing.objects.create(**values)


def make_event(*, ago_s: float = 10, **changes: Any) -> AuditEvent:
    at = timezone.now() - timedelta(seconds=ago_s)
    values: dict[str, Any] = {
        "id": record_id(at),
        "timestamp": at,
        "received_at": at,
        "tenant": "default",
        "user_id": "ann",
        "action": "login",
        "payload": {"user_id": "ann", "action": "login"},
    }
    values |= changes
    _make_room(AuditEvent, values["id"])
    return AuditEvent.objects.create(**values)
