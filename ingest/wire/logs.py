"""Log records: `timestamp level service message trace_id span_id`, with their usual aliases."""

from __future__ import annotations

from typing import Any

import msgspec

from ingest.wire.envelope import Envelope, Name, read_time, times_of
from ingest.wire.errors import RecordError
from ingest.wire.fields import first_of, text_of
from ingest.wire.levels import LEVELS, SEVERITIES
from pipeline.record import INFO, Record

MESSAGES = ("message", "msg", "body")


class Line(Envelope, gc=False, kw_only=True):
    level: str | int | None = None
    severity: str | int | None = None
    service: Name = None
    message: str | None = None
    msg: str | None = None
    body: str | None = None
    trace_id: Name = None
    span_id: Name = None


class _Text(msgspec.Struct, gc=False):
    message: str


decode = msgspec.json.Decoder(Line).decode
_encode_text = msgspec.json.Encoder().encode


def build(parsed: list[Line], lines: list[bytes], arrival_us: int) -> list[Record]:
    levels, severities = LEVELS, SEVERITIES
    return [
        Record(
            us,
            levels[line.level] if line.level is not None else severities[line.severity],
            line.service or "",
            line.message if line.message is not None else _message_of(line),
            line.trace_id or "",
            line.span_id or "",
            raw,
        )
        for us, line, raw in zip(times_of(parsed, arrival_us), parsed, lines, strict=True)
    ]


def _message_of(line: Line) -> str:
    return line.msg if line.msg is not None else line.body or ""


def read(fields: dict[str, Any], line: bytes, arrival_us: int) -> Record:
    us = read_time(fields, arrival_us)
    severity = _severity(fields)
    name, message = first_of(fields, MESSAGES)
    return Record(
        us,
        severity,
        text_of("service", fields.get("service")),
        text_of(name, message, limit=None),
        text_of("trace_id", fields.get("trace_id")),
        text_of("span_id", fields.get("span_id")),
        line,
    )


def _severity(fields: dict[str, Any]) -> int:
    name, value = first_of(fields, ("level", "severity"))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise RecordError("wrong_type", f"{name} must be a word or a whole number")
    return LEVELS[value] if name == "level" else SEVERITIES[value]


def text_records(texts: list[str], arrival_us: int) -> list[Record]:
    """Lines of plain text as records, whose payload is `{"message": line}`."""
    encode = _encode_text
    return [Record(arrival_us, INFO, "", text, "", "", encode(_Text(text))) for text in texts]
