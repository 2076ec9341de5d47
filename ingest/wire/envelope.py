"""What records of every kind share: when they happened, and whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec

from ingest.wire.errors import RecordError
from ingest.wire.fields import MAX_NAME, first_of
from ingest.wire.timestamps import EPOCH, MAX_US, MICROSECOND, MIN_US, microseconds

TIMES = ("timestamp", "ts", "time", "@timestamp")

Time = datetime | int | float | None
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)] | None


class Envelope(msgspec.Struct, gc=False, kw_only=True):
    """The typed base of every kind's struct."""

    timestamp: Time = None
    ts: Time = None
    time: Time = None
    at_timestamp: Time = msgspec.field(name="@timestamp", default=None)
    tenant: Name = None


def times_of(parsed: Sequence[Envelope], arrival_us: int) -> list[int]:
    """Each record's own time in microseconds, or that of its arrival; raises RecordError."""
    try:
        # Most senders write RFC 3339 in every record; anything else raises TypeError here.
        times: list[int] = [
            (one.timestamp - EPOCH) // MICROSECOND  # type: ignore[operator, misc]
            for one in parsed
        ]
    except TypeError:
        return [_time_of(one, arrival_us) for one in parsed]
    if min(times) < MIN_US or max(times) > MAX_US:
        raise RecordError("bad_timestamp", "a timestamp is outside the years 1 to 9999")
    return times


def _time_of(one: Envelope, arrival_us: int) -> int:
    if one.timestamp is not None:
        return microseconds(one.timestamp, "timestamp")
    if one.ts is not None:
        return microseconds(one.ts, "ts")
    if one.time is not None:
        return microseconds(one.time, "time")
    if one.at_timestamp is not None:
        return microseconds(one.at_timestamp, "@timestamp")
    return arrival_us


def read_time(fields: dict[str, Any], arrival_us: int) -> int:
    """`times_of` for one record's fields, patiently."""
    name, value = first_of(fields, TIMES)
    return arrival_us if value is None else microseconds(value, name)
