"""Timestamps by whatever form they are sent, as microseconds since 1970 UTC.

RFC 3339 text, or a count since 1970 whose unit follows from its size: seconds, milliseconds,
microseconds or nanoseconds.  Text without an offset is UTC.  Only the years 1 to 9999 can be
stored and shown.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

import msgspec

from ingest.wire.errors import RecordError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MIN_US = -62_135_596_800_000_000  # 0001-01-01T00:00:00Z
MAX_US = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z

# Below each bound a number counts in that unit; above the last it counts nanoseconds.
_SECONDS_BELOW = 100_000_000_000
_MILLISECONDS_BELOW = _SECONDS_BELOW * 1000
_MICROSECONDS_BELOW = _MILLISECONDS_BELOW * 1000

_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?\Z")
_LEAP_SECOND = re.compile(r"(.*[T ][0-9]{2}:[0-9]{2}:)60(.*)\Z", re.DOTALL)


def microseconds(value: object, field: str) -> int:
    """The sent value of `field`, of any type; raises RecordError if it is no time."""
    if isinstance(value, str):
        value = _parse(value, field)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
        us = (value - EPOCH) // MICROSECOND
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError("wrong_type", f"{field} must be RFC 3339 text or a number")
    else:
        us = _from_number(value, field)
    if not MIN_US <= us <= MAX_US:
        raise _out_of_range(field)
    return us


def _parse(text: str, field: str) -> datetime | int | float:
    stripped = text.strip()
    if _NUMBER.match(stripped):
        return float(stripped) if "." in stripped else int(stripped)
    try:
        return msgspec.convert(stripped, datetime)
    except msgspec.ValidationError:
        pass
    if leap := _LEAP_SECOND.match(stripped):
        # The clock that shows :60 means the second that follows :59.
        try:
            return msgspec.convert(f"{leap[1]}59{leap[2]}", datetime) + timedelta(seconds=1)
        except (msgspec.ValidationError, OverflowError):
            pass
    raise RecordError(
        "bad_timestamp",
        f"{field} {text[:60]!r} is not a time: send RFC 3339, such as 2026-01-31T09:30:00Z, "
        "in the years 1 to 9999, or a count since 1970",
    )


def _from_number(value: int | float, field: str) -> int:
    if not math.isfinite(value):
        raise _out_of_range(field)
    size = abs(value)
    if isinstance(value, float):
        if size < _SECONDS_BELOW:
            return round(value * 1_000_000)
        if size < _MILLISECONDS_BELOW:
            return round(value * 1_000)
        if size < _MICROSECONDS_BELOW:
            return round(value)
        return int(value) // 1000
    if size < _SECONDS_BELOW:
        return value * 1_000_000
    if size < _MILLISECONDS_BELOW:
        return value * 1_000
    if size < _MICROSECONDS_BELOW:
        return value
    return value // 1000


def _out_of_range(field: str) -> RecordError:
    return RecordError("bad_timestamp", f"{field} is outside the years 1 to 9999")
