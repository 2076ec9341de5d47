"""Fields of records as columns of somebody's table: text COPY, which the server casts by itself.

A source is a field of the record (`timestamp`, `service`, …), the whole `payload`, or a path into
it: `payload.user.id`.  Text form, so that any column type is served (enums, numerics, arrays) and
a wrong value is the server's to name.  Compiled once; rows are made on worker threads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from pipeline.record import Batch, Part, Record, level_name

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b"})
_NULL = "\\N"

# A double would round a price.
_decode = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode

FIELDS: dict[str, Callable[[Part, Record], Any]] = {
    "id": lambda part, record: record.id,
    "timestamp": lambda part, record: _time(record.timestamp_us),
    "received_at": lambda part, record: _time(part.received_us),
    "tenant": lambda part, record: part.tenant,
    "type": lambda part, record: part.type,
    "level": lambda part, record: level_name(record.severity),
    "severity": lambda part, record: record.severity,
    "service": lambda part, record: record.service,
    "message": lambda part, record: record.message,
    "trace_id": lambda part, record: record.trace_id,
    "span_id": lambda part, record: record.span_id,
    "request_id": lambda part, record: part.request_id,
    "payload": lambda part, record: record.payload.decode(),
}
_PAYLOAD_PATH = "payload."


def source_problem(source: str) -> str:
    """Why a source cannot be used; "" when it can."""
    if source in FIELDS:
        return ""
    if source.startswith(_PAYLOAD_PATH) and all(source.split(".")):
        return ""
    return f"{source!r} is not a field; known are {', '.join(FIELDS)} and payload.<name>"


class RowMapping:
    """Rows of text COPY for an ordered map of column to source."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self.columns = list(columns)
        self._named = dict(columns)
        self._sources = [_source(source) for source in columns.values()]
        self._cells: list[Callable[[Any], str]] = [_cell] * len(self.columns)
        self._needs_payload = any(source.startswith(_PAYLOAD_PATH) for source in columns.values())

    def learn(self, json_columns: Collection[str]) -> None:
        """Which columns are of type json or jsonb: a text must become a JSON string there."""
        self._cells = [
            _json_cell if name in json_columns and source != "payload" else _cell
            for name, source in self._named.items()
        ]

    def rows(self, batch: Batch) -> tuple[list[bytes], list[int], dict[int, str]]:
        """Encoded rows, their places in the batch, and the records that cannot be rows."""
        rows: list[bytes] = []
        indices: list[int] = []
        failures: dict[int, str] = {}
        index = -1
        for part in batch.parts:
            for record in part.records:
                index += 1
                try:
                    rows.append(self._row(part, record))
                except (ValueError, OverflowError) as error:  # not JSON, not UTF-8, no such date
                    failures[index] = f"{type(error).__name__}: {error}"
                    continue
                indices.append(index)
        return rows, indices, failures

    def _row(self, part: Part, record: Record) -> bytes:
        payload = _decode(record.payload) if self._needs_payload else {}
        cells = [
            cell(source(part, record, payload))
            for cell, source in zip(self._cells, self._sources, strict=True)
        ]
        return ("\t".join(cells) + "\n").encode()


def _source(source: str) -> Callable[[Part, Record, dict[str, Any]], Any]:
    if source in FIELDS:
        field = FIELDS[source]
        return lambda part, record, payload: field(part, record)
    path = source.removeprefix(_PAYLOAD_PATH).split(".")
    if len(path) == 1:
        name = path[0]
        return lambda part, record, payload: payload.get(name)

    def find(part: Part, record: Record, payload: dict[str, Any]) -> Any:
        value: Any = payload
        for name in path:
            if not isinstance(value, dict):
                return None
            value = value.get(name)
        return value

    return find


def _cell(value: Any) -> str:
    if value is None:
        return _NULL
    if isinstance(value, dict | list | bool):
        value = _encode(value).decode()
    text = value if isinstance(value, str) else str(value)
    return _escaped(text)


def _json_cell(value: Any) -> str:
    return _NULL if value is None else _escaped(_encode(value).decode())


def _escaped(text: str) -> str:
    return text if text.isprintable() and "\\" not in text else text.translate(_ESCAPES)


def _time(us: int) -> str:
    return (_EPOCH + timedelta(microseconds=us)).isoformat(" ")
