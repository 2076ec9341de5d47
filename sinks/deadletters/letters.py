"""A letter in its three shapes: the engine's struct, a row, a line of a file.  Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from pipeline import deadletter
from pipeline.record import Record, decode_records, encode_records
from pipeline.redrive import record_of
from sinks.deadletters.models import ERROR_LENGTH, NAME_LENGTH, PATTERN_LENGTH, DeadLetter

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EARLIEST, _LATEST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
# Identities before digits, which they are made of.
_IDS = re.compile(r"(?i)\b(?:[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|(?=[a-f]*[0-9])[0-9a-f]{12,})\b")  # fmt: skip  # noqa: E501
_DIGITS = re.compile(r"\d+(?:[.,:]\d+)*")


def row_of(letter: deadletter.DeadLetter, *, now: datetime) -> DeadLetter:
    """A new row.  Whatever the letter holds, a database takes it."""
    text = {
        name: _fit(getattr(letter, name), NAME_LENGTH)
        for name in ("service", "trace_id", "span_id")
    }
    message, payload = _fit(letter.message), _fit(letter.payload.decode(errors="backslashreplace"))
    timestamp = moment(letter.timestamp_us)
    kept = (
        all(text[name] == getattr(letter, name) for name in text)
        and message == letter.message
        and payload.encode() == letter.payload
        and microseconds(timestamp) == letter.timestamp_us
    )
    error = _fit(letter.error, ERROR_LENGTH)
    return DeadLetter(
        sink=letter.sink,
        sink_name=_fit(letter.sink_name, NAME_LENGTH),
        record_id=letter.record_id,
        type=letter.type,
        tenant=letter.tenant,
        message=message,
        payload=payload,
        exact=None if kept else encode_records([record_of(letter)]),
        timestamp=timestamp,
        received_at=moment(letter.received_us),
        severity=letter.severity,
        request_id=_fit(letter.request_id, NAME_LENGTH),
        traceparent=_fit(letter.traceparent, NAME_LENGTH),
        nbytes=len(letter.payload),
        reason=_fit(letter.reason, 32),
        error=error,
        pattern=pattern_of(error),
        attempts=letter.attempts,
        first_tried_at=moment(letter.first_tried_us),
        last_tried_at=moment(letter.last_tried_us),
        batch_id=_fit(letter.batch_id, NAME_LENGTH),
        origin=_fit(letter.origin, NAME_LENGTH),
        entered_at=now,
        changed_at=now,
        **text,
    )


def letter_of(row: DeadLetter) -> deadletter.DeadLetter:
    """What a redrive sends: with the payload as edited, else exactly as it was sent."""
    record = as_sent(row) if not row.edited_payload else _as_columns(row)
    return deadletter.DeadLetter(
        sink=row.sink,
        sink_name=row.sink_name,
        record_id=row.record_id,
        type=row.type,
        tenant=row.tenant,
        request_id=row.request_id,
        traceparent=row.traceparent,
        received_us=microseconds(row.received_at),
        timestamp_us=record.timestamp_us,
        severity=record.severity,
        service=record.service,
        message=record.message,
        trace_id=record.trace_id,
        span_id=record.span_id,
        payload=record.payload,
        reason=row.reason,
        error=row.error,
        attempts=row.attempts,
        first_tried_us=microseconds(row.first_tried_at),
        last_tried_us=microseconds(row.last_tried_at),
        batch_id=row.batch_id,
        origin=row.origin,
    )


def as_sent(row: DeadLetter) -> Record:
    """The record as it came, whatever has been edited since."""
    if row.exact is not None:
        (record,) = decode_records(bytes(row.exact))
        return record
    return _as_columns(row)


def keep_as_sent(row: DeadLetter) -> None:
    """Before the first edit, which changes the columns."""
    if row.exact is None:
        row.exact = encode_records([_as_columns(row)])


def take_fields(row: DeadLetter, record: Record) -> None:
    """The columns that are read from a payload, as this record has them."""
    row.timestamp, row.severity = moment(record.timestamp_us), record.severity
    row.message = _fit(record.message)
    for name in ("service", "trace_id", "span_id"):
        setattr(row, name, _fit(getattr(record, name), NAME_LENGTH))


def _as_columns(row: DeadLetter) -> Record:
    return Record(
        timestamp_us=microseconds(row.timestamp),
        severity=row.severity,
        service=row.service,
        message=row.message,
        trace_id=row.trace_id,
        span_id=row.span_id,
        payload=row.current_payload.encode(),
    )


def readable_line(letter: deadletter.DeadLetter) -> bytes:
    """One line of NDJSON for people and their tools: times as text, the payload as it is."""
    fields: dict[str, Any] = {
        name: getattr(letter, name)
        for name in letter.__struct_fields__
        if name != "payload" and not name.endswith("_us")
    }
    fields["error"] = _storable(letter.error)
    for name in ("received_us", "timestamp_us", "first_tried_us", "last_tried_us"):
        fields[name.removesuffix("_us")] = moment(getattr(letter, name))
    if _is_one_json_line(letter.payload):
        fields["payload"] = msgspec.Raw(letter.payload)
    else:
        fields["payload_base64"] = letter.payload
    return msgspec.json.encode(fields) + b"\n"


def pattern_of(error: str) -> str:
    """The error's first line without ids and numbers, so that like errors group."""
    lines = error.strip().splitlines()
    text = _IDS.sub("<id>", lines[0] if lines else "")
    return _DIGITS.sub("N", text)[:PATTERN_LENGTH]


def moment(time_us: int) -> datetime:
    """Microseconds as a moment, within what databases know."""
    try:
        found = _EPOCH + time_us * _MICROSECOND
    except OverflowError:
        return _LATEST if time_us > 0 else _EARLIEST
    return min(max(found, _EARLIEST), _LATEST)


def microseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def by_sink(
    letters: Iterable[deadletter.DeadLetter],
) -> dict[str, list[deadletter.DeadLetter]]:
    """The letters of each sink, in the order of their records, each record once."""
    found: dict[str, dict[int, deadletter.DeadLetter]] = {}
    for letter in letters:
        found.setdefault(letter.sink, {})[letter.record_id] = letter
    return {
        sink: [each[record_id] for record_id in sorted(each)]
        for sink, each in sorted(found.items())
    }


def _fit(text: str, length: int | None = None) -> str:
    """The text as a column takes it: no NUL, nothing that is no character, no longer than it."""
    return _storable(text)[:length]


def _storable(text: str) -> str:
    text = text.replace("\0", "\\u0000")
    return text.encode("utf-8", "backslashreplace").decode()


def _is_one_json_line(payload: bytes) -> bool:
    if b"\n" in payload or b"\r" in payload:
        return False
    try:
        msgspec.json.decode(payload, type=msgspec.Raw)
        payload.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
