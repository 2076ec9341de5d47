"""Protobuf bodies: a `LogBatch` of docs/schema/collector.proto.

The batch is cut into its records here, so that each is bounded and judged by itself; the runtime
decodes them (in C, without `json_format`), and each is written out as the JSON object that it
stands for, which the record keeps and which is judged by what judges JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

import msgspec

from ingest.wire.errors import RecordError, RequestError
from ingest.wire.protoschema import schema
from ingest.wire.timestamps import EPOCH

_RECORDS = 0x0A  # field 1, length-delimited
_MAX_VARINT_BYTES = 5  # a length below 2 GiB, which is the most of any message

_encode = msgspec.json.Encoder().encode


def split(body: bytes, check_count: Callable[[int], None]) -> list[bytes]:
    """The records of a batch, still encoded; raises RequestError if the body is none.

    `check_count` is told of a count before more are made, and raises if it is too many.
    """
    pieces: list[bytes] = []
    at, end = 0, len(body)
    while at < end:
        if body[at] != _RECORDS:
            raise _malformed(at, "there is no field `records` of a LogBatch")
        start = at + 1
        # Most records are of less than 16 KiB, whose length takes one byte or two.
        size = body[start] if start < end else 0x80
        start += 1
        if size > 0x7F:
            size, start = _varint(body, start - 1)
        at = start + size
        if at > end:
            raise _malformed(end, "the body ends too early")
        pieces.append(body[start:at])
        if not len(pieces) & 0x3FF:
            check_count(len(pieces))
    check_count(len(pieces))
    return pieces


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(body[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    if at + _MAX_VARINT_BYTES > len(body):
        raise _malformed(len(body), "the body ends too early")
    raise _malformed(at, "the length of a record is no length")


def _malformed(at: int, said: str) -> RequestError:
    return RequestError(
        400,
        "malformed_protobuf",
        f"protobuf is malformed: {said} (byte {at}). The body is one LogBatch of "
        "docs/schema/collector.proto; nothing of it was stored",
    )


class Lines:
    """Writes records out as JSON objects; see `binary`."""

    odd: tuple[type[Exception], ...] = (RecordError,)

    def __init__(self, *, max_depth: int) -> None:
        from google.protobuf.message import DecodeError
        from google.protobuf.unknown_fields import UnknownFieldSet

        self._error = DecodeError
        self._unknown = UnknownFieldSet
        self._parse = schema().log_record.FromString
        self._max_depth = max_depth

    def swiftly(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        return map(self.carefully, pieces)

    def carefully(self, piece: bytes) -> bytes:
        try:
            record = self._parse(piece)
        except self._error as error:
            raise RecordError(
                "malformed_protobuf",
                "the record is no LogRecord of docs/schema/collector.proto, a text in it is not "
                f"UTF-8, or it nests too deeply: {str(error)[:100]}",
            ) from None
        if len(self._unknown(record)):
            raise self._unknown_field(record)
        fields: dict[str, Any] = {}
        if record.HasField("timestamp_us"):
            try:
                fields["timestamp"] = EPOCH + timedelta(microseconds=record.timestamp_us)
            except OverflowError:
                raise RecordError(
                    "bad_timestamp", "timestamp_us is outside the years 1 to 9999"
                ) from None
        if value := record.level:
            fields["level"] = value
        if value := record.severity:
            fields["severity"] = value
        if value := record.service:
            fields["service"] = value
        if value := record.message:
            fields["message"] = value
        if value := record.trace_id:
            fields["trace_id"] = value
        if value := record.span_id:
            fields["span_id"] = value
        if value := record.tenant:
            fields["tenant"] = value
        if more := record.fields:
            self._add(fields, more)
        return _encode(fields)

    def _add(self, fields: dict[str, Any], more: Any) -> None:
        for name, value in more.items():
            if name in fields:
                raise RecordError(
                    "duplicate_field", f"{name[:60]!r} is both in `fields` and beside it"
                )
            fields[name] = self._value(value, self._max_depth - 1, name)

    def _value(self, value: Any, depth: int, name: str) -> Any:
        """The JSON value; `depth` levels may be opened in it."""
        if len(self._unknown(value)):
            raise self._unknown_field(value)
        kind = value.WhichOneof("kind")
        if kind is None:
            return None
        found = getattr(value, kind)
        if kind == "number" and not math.isfinite(found):
            raise RecordError("not_json", f"{name[:60]!r} is {found}, which JSON has no number for")
        if kind not in ("list", "object"):
            return found
        if not depth:
            raise RecordError("too_deep", f"the record nests deeper than {self._max_depth} levels")
        if len(self._unknown(found)):
            raise self._unknown_field(found)
        if kind == "list":
            return [self._value(item, depth - 1, name) for item in found.values]
        return {key: self._value(item, depth - 1, key) for key, item in found.fields.items()}

    def _unknown_field(self, message: Any) -> RecordError:
        number = self._unknown(message)[0].field_number
        return RecordError(
            "unknown_field",
            f"field {number} of a {message.DESCRIPTOR.name} is not in docs/schema/collector.proto, "
            "or is of another type there: it would be lost",
        )
