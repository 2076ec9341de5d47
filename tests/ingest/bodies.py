"""Bodies and calls that the tests of the wire share."""

from __future__ import annotations

import json
from typing import Any

from ingest.wire.decode import Decoded, Limits, decode
from ingest.wire.formats import Format
from ingest.wire.kinds import LOGS, Kind
from pipeline.record import Record

ARRIVAL_US = 1_790_000_000_000_000
LIMITS = Limits(max_records=2000, max_record_bytes=100_000, max_depth=64)


def take(
    body: bytes | str,
    *,
    format: Format = Format.JSON,
    kind: Kind = LOGS,
    any_tenant: bool = False,
    limits: Limits = LIMITS,
) -> Decoded:
    return decode(
        body.encode() if isinstance(body, str) else body,
        format=format,
        kind=kind,
        tenant="default",
        any_tenant=any_tenant,
        arrival_us=ARRIVAL_US,
        limits=limits,
    )


def one(fields: dict[str, Any] | bytes | str, **options: Any) -> Record:
    """The one record of a body that must be valid."""
    body = json.dumps(fields) if isinstance(fields, dict) else fields
    decoded = take(body, **options)
    assert decoded.rejections == []
    (record,) = decoded.records["default"]
    return record


def refusal(fields: dict[str, Any] | bytes | str, **options: Any) -> str:
    """The code of the one rejection of a body that holds nothing valid."""
    body = json.dumps(fields) if isinstance(fields, dict) else fields
    decoded = take(body, **options)
    assert decoded.records == {}
    (rejection,) = decoded.rejections
    assert rejection.detail
    return rejection.code


def lines(count: int, **more: Any) -> list[bytes]:
    return [
        json.dumps({"service": "checkout", "message": f"line {i}", **more}).encode()
        for i in range(count)
    ]
