"""Rows of records as a sink would have stored them, on either database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from control.partitions import on_demand
from ingest.models import AuditEvent, HealthPing, LogRecord
from pipeline.ids import first_id_at


def id_at(moment: datetime, n: int = 0) -> int:
    return first_id_at(int(moment.timestamp() * 1_000_000)) + n


def store_logs(moment: datetime, payloads: list[dict[str, Any]], *, first: int = 0) -> None:
    _store(LogRecord, moment, payloads, first, {"level": "INFO", "service": "s", "message": "m"})


def store_pings(moment: datetime, payloads: list[dict[str, Any]]) -> None:
    _store(HealthPing, moment, payloads, 0, {"service": "s", "status": "up"})


def store_events(moment: datetime, payloads: list[dict[str, Any]]) -> None:
    _store(AuditEvent, moment, payloads, 0, {"user_id": "u", "action": "a"})


def _store(
    model: Any, moment: datetime, payloads: list[dict[str, Any]], first: int, fields: dict[str, Any]
) -> None:
    ids = [id_at(moment, first + n) for n in range(len(payloads))]
    # What is remembered may have been made in a transaction that another test took back.
    on_demand.forget(model._meta.db_table)
    on_demand.ensure_range(model._meta.db_table, ids[0], ids[-1])
    stamp = moment.astimezone(UTC)
    model.objects.using("records").bulk_create(
        model(
            id=number, timestamp=stamp, received_at=stamp, tenant="default", payload=payload,
            **fields,
        )
        for number, payload in zip(ids, payloads, strict=True)
    )  # fmt: skip
