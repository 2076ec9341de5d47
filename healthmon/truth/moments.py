"""Microseconds since 1970 and datetimes: changes carry the one, rows the other.  Pure functions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_US = 253_402_300_799_000_000  # 9999-12-31T23:59:59Z


def at(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def us_of(moment: datetime) -> int:
    since = moment - EPOCH  # dividing it takes twice as long
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
