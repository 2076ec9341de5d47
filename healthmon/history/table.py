"""How a `probe` record becomes a row of results, and which minutes a batch of them touches.

Runs in the sink's worker threads; keeps nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from django.conf import settings

from control.ports.tables import Column, TableSpec
from healthmon.history.records import PROBE, StoredResult
from pipeline.record import Batch, Part, Record

LATE_US = 3_600_000_000
"""A result that says it began longer before it arrived has a wrong clock..."""
EARLY_US = 60_000_000
"""...as has one that says it began after; both are filed under their arrival."""
MINUTE_US = 60_000_000

_decode_all = msgspec.json.Decoder(list[StoredResult]).decode
_decode = msgspec.json.Decoder(StoredResult).decode
_Row = tuple[object, ...]


def result_rows(part: Part) -> Iterable[_Row]:
    records = part.records
    try:
        # All payloads as one array: one call for the batch.
        stored = _decode_all(b"[%b]" % b",".join([record.payload for record in records]))
    except msgspec.DecodeError:
        stored = []
    if len(stored) != len(records):
        return [_row_alone(record, part.received_us) for record in records]
    earliest, latest = part.received_us - LATE_US, part.received_us + EARLY_US
    return [
        (
            record.id,
            record.timestamp_us if earliest <= record.timestamp_us <= latest else part.received_us,
            result.target_id,
            result.outcome,
            result.total_ms,
            result.dns_ms if result.dns_ms >= 0 else None,
            result.connect_ms if result.connect_ms >= 0 else None,
            result.tls_ms if result.tls_ms >= 0 else None,
            result.first_byte_ms if result.first_byte_ms >= 0 else None,
            result.code,
            result.address,
            result.error,
        )
        for record, result in zip(records, stored, strict=True)
    ]


def _row_alone(record: Record, received_us: int) -> _Row:
    """One row; that of a payload which is no result is one that no database takes."""
    try:
        result = _decode(record.payload)
    except msgspec.DecodeError:
        return (record.id, received_us, None, "", 0.0, None, None, None, None, 0, "", "")
    return (
        record.id,
        filed_us(record.timestamp_us, received_us),
        result.target_id,
        result.outcome,
        result.total_ms,
        *(
            phase if phase >= 0 else None
            for phase in (result.dns_ms, result.connect_ms, result.tls_ms, result.first_byte_ms)
        ),
        result.code,
        result.address,
        result.error,
    )


def filed_us(timestamp_us: int, received_us: int) -> int:
    """The time under which a result is kept."""
    if received_us - LATE_US <= timestamp_us <= received_us + EARLY_US:
        return timestamp_us
    return received_us


def minutes_of(batch: Batch) -> dict[int, list[int]]:
    """The minutes (since 1970) that a batch touches, each with its first and last id."""
    minutes: dict[int, list[int]] = {}
    known = minutes.get
    for part in batch.parts:
        received_us = part.received_us
        earliest, latest = received_us - LATE_US, received_us + EARLY_US
        for record in part.records:
            at_us, record_id = record.timestamp_us, record.id
            minute = (at_us if earliest <= at_us <= latest else received_us) // MINUTE_US
            ids = known(minute)
            if ids is None:
                minutes[minute] = [record_id, record_id]
            elif record_id > ids[1]:
                ids[1] = record_id
            elif record_id < ids[0]:
                ids[0] = record_id
    return minutes


def _kept_days() -> int:
    return settings.COLLECTOR.monitoring.results_days


RESULTS = TableSpec(
    record_type=PROBE,
    table="healthmon_proberesult",
    columns=(
        Column("id", "int8"),
        Column("timestamp", "timestamptz"),
        Column("target_id", "int8"),
        Column("outcome", "text"),
        Column("latency_ms", "float8"),
        Column("dns_ms", "float8", nullable=True),
        Column("connect_ms", "float8", nullable=True),
        Column("tls_ms", "float8", nullable=True),
        Column("first_byte_ms", "float8", nullable=True),
        Column("code", "int4"),
        Column("address", "text"),
        Column("error", "text"),
    ),
    rows=result_rows,
    search="",
    own=True,
    kept_days=_kept_days,
)
