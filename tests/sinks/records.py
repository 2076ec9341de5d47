"""Batches for the tests of sinks, with ids that no other test of the run uses."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec

from pipeline.ids import first_id_at
from pipeline.record import INFO, Batch, Record
from sinks.handmade import make_batch, make_part

ARRIVAL_US = 1_790_000_000_000_000  # 2026-09-21T14:13:20Z
_ids = itertools.count(first_id_at(ARRIVAL_US))
_numbers = itertools.count(1)


def record(
    payload: dict[str, object] | bytes | None = None,
    *,
    service: str = "web",
    message: str = "hello",
    timestamp_us: int = ARRIVAL_US,
    severity: int = INFO,
) -> Record:
    if not isinstance(payload, bytes):
        payload = msgspec.json.encode({"service": service, "message": message, **(payload or {})})
    return Record(
        timestamp_us=timestamp_us,
        severity=severity,
        service=service,
        message=message,
        trace_id="",
        span_id="",
        payload=payload,
        id=next(_ids),
    )


def records(count: int, **fields: object) -> list[Record]:
    return [record({"n": n}, **fields) for n in range(count)]  # type: ignore[arg-type]


def batch(
    records: Sequence[Record],
    *,
    type: str = "log",
    tenant: str = "default",
    received_us: int = ARRIVAL_US,
    log_id: str = "testlog",
) -> Batch:
    part = make_part(records, type=type, tenant=tenant, received_us=received_us, request_id="req-1")
    return make_batch([part], number=next(_numbers), log_id=log_id)


def batch_of_parts(*groups: Sequence[Record], tenants: Sequence[str] = ()) -> Batch:
    names = list(tenants) or [f"tenant-{n}" for n in range(len(groups))]
    parts = [
        make_part(group, tenant=tenant, received_us=ARRIVAL_US)
        for group, tenant in zip(groups, names, strict=True)
    ]
    return make_batch(parts, number=next(_numbers), log_id="testlog")
