"""Audit events: `{user_id, action, timestamp?, …}`; both are needed, `user_id` may be a number."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from ingest.wire.envelope import Envelope, Name, read_time, times_of
from ingest.wire.errors import RecordError
from ingest.wire.fields import MAX_NAME, required_text, text_of
from pipeline.record import INFO, Record

NonEmpty = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
Number = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Event(Envelope, gc=False, kw_only=True):
    user_id: NonEmpty | Number
    action: NonEmpty
    service: Name = None
    trace_id: Name = None
    span_id: Name = None


decode = msgspec.json.Decoder(Event).decode


def build(parsed: list[Event], lines: list[bytes], arrival_us: int) -> list[Record]:
    return [
        Record(
            us,
            INFO,
            event.service or "",
            event.action,
            event.trace_id or "",
            event.span_id or "",
            raw,
        )
        for us, event, raw in zip(times_of(parsed, arrival_us), parsed, lines, strict=True)
    ]


def read(fields: dict[str, Any], line: bytes, arrival_us: int) -> Record:
    user = fields.get("user_id")
    if isinstance(user, bool) or not isinstance(user, int):
        required_text(fields, "user_id")
    elif not -(2**63) <= user < 2**63:
        raise RecordError("bad_value", "user_id is too large a number: send it as text")
    return Record(
        read_time(fields, arrival_us),
        INFO,
        text_of("service", fields.get("service")),
        required_text(fields, "action"),
        text_of("trace_id", fields.get("trace_id")),
        text_of("span_id", fields.get("span_id")),
        line,
    )
