"""Health pings: `{service, status: up|degraded|down, latency_ms?, timestamp?, …}`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec

from ingest.wire.envelope import Envelope, read_time, times_of
from ingest.wire.errors import RecordError
from ingest.wire.fields import MAX_NAME, required_text
from pipeline.record import ERROR, INFO, WARN, Record

SEVERITY = {"up": INFO, "degraded": WARN, "down": ERROR}


class Ping(Envelope, gc=False, kw_only=True):
    service: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
    status: Literal["up", "degraded", "down"]
    latency_ms: Annotated[float, msgspec.Meta(ge=0)] | None = None


decode = msgspec.json.Decoder(Ping).decode


def build(parsed: list[Ping], lines: list[bytes], arrival_us: int) -> list[Record]:
    return [
        Record(us, SEVERITY[ping.status], ping.service, ping.status, "", "", raw)
        for us, ping, raw in zip(times_of(parsed, arrival_us), parsed, lines, strict=True)
    ]


def read(fields: dict[str, Any], line: bytes, arrival_us: int) -> Record:
    service = required_text(fields, "service")
    status = required_text(fields, "status")
    if status not in SEVERITY:
        raise RecordError(
            "bad_value", f"status must be up, degraded or down, this is {status[:40]!r}"
        )
    latency = fields.get("latency_ms")
    if latency is not None:
        if isinstance(latency, bool) or not isinstance(latency, int | float):
            raise RecordError("wrong_type", "latency_ms must be a number")
        if not 0 <= latency < math.inf:
            raise RecordError("bad_value", "latency_ms must be 0 or more, and finite")
    return Record(read_time(fields, arrival_us), SEVERITY[status], service, status, "", "", line)
