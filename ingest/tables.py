"""How records become rows: one table spec a record type, registered when Django is ready.

The row functions run on the sinks' worker threads, once per part of a batch, over every record
that is stored, and keep no state.  Values that only one type has are decoded from the payload,
where the front door has validated them.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from control.ports.tables import Column, TableSpec, register_table
from pipeline.record import Part, level_name

_LEVELS = tuple(level_name(severity) for severity in range(25))

_ID, _TIMESTAMP, _RECEIVED, _TENANT = (
    Column("id", "int8"),
    Column("timestamp", "timestamptz"),
    Column("received_at", "timestamptz"),
    Column("tenant", "text"),
)
_PAYLOAD = Column("payload", "jsonb")


class _PingExtra(msgspec.Struct):
    latency_ms: float | None = None


class _EventExtra(msgspec.Struct):
    user_id: str | int = ""


_ping_extra = msgspec.json.Decoder(_PingExtra).decode
_event_extra = msgspec.json.Decoder(_EventExtra).decode


def log_rows(part: Part) -> Iterable[tuple[object, ...]]:
    tenant, received_us, levels = part.tenant, part.received_us, _LEVELS
    return [
        (
            r.id,
            r.timestamp_us,
            received_us,
            tenant,
            levels[r.severity],
            r.service,
            r.message,
            r.trace_id,
            r.span_id,
            r.payload,
        )
        for r in part.records
    ]


def ping_rows(part: Part) -> Iterable[tuple[object, ...]]:
    tenant, received_us = part.tenant, part.received_us
    return [
        (
            r.id,
            r.timestamp_us,
            received_us,
            tenant,
            r.service,
            r.message,
            _ping_extra(r.payload).latency_ms,
            r.payload,
        )
        for r in part.records
    ]


def event_rows(part: Part) -> Iterable[tuple[object, ...]]:
    tenant, received_us = part.tenant, part.received_us
    return [
        (
            r.id,
            r.timestamp_us,
            received_us,
            tenant,
            str(_event_extra(r.payload).user_id),
            r.message,
            r.payload,
        )
        for r in part.records
    ]


LOGS = TableSpec(
    record_type="log",
    table="ingest_logrecord",
    columns=(
        _ID,
        _TIMESTAMP,
        _RECEIVED,
        _TENANT,
        Column("level", "text"),
        Column("service", "text"),
        Column("message", "text"),
        Column("trace_id", "text"),
        Column("span_id", "text"),
        _PAYLOAD,
    ),
    rows=log_rows,
)
HEALTH = TableSpec(
    record_type="health",
    table="ingest_healthping",
    columns=(
        _ID,
        _TIMESTAMP,
        _RECEIVED,
        _TENANT,
        Column("service", "text"),
        Column("status", "text"),
        Column("latency_ms", "float8"),
        _PAYLOAD,
    ),
    rows=ping_rows,
)
EVENTS = TableSpec(
    record_type="event",
    table="ingest_auditevent",
    columns=(
        _ID,
        _TIMESTAMP,
        _RECEIVED,
        _TENANT,
        Column("user_id", "text"),
        Column("action", "text"),
        _PAYLOAD,
    ),
    rows=event_rows,
)


def register_tables() -> None:
    for spec in (LOGS, HEALTH, EVENTS):
        register_table(spec)
