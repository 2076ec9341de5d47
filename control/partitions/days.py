"""A day of arrival as a range of record ids, and the name of its partition. Pure functions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from pipeline.ids import first_id_at, time_of

_MAX_NAME = 63
_SUFFIX = re.compile(r"_p(\d{8})\Z")


def day_of(record_id: int) -> date:
    """The UTC day in which the record arrived."""
    return datetime.fromtimestamp(time_of(record_id) // 1_000_000, UTC).date()


def id_range(day: date) -> tuple[int, int]:
    """The first id of the day and the first one after it."""
    return _first_id(day), _first_id(day + timedelta(days=1))


def days_between(first_id: int, last_id: int) -> Iterator[date]:
    """The days that a range of ids touches, both ends included."""
    day, last = day_of(first_id), day_of(last_id)
    while day <= last:
        yield day
        day += timedelta(days=1)


def partition_name(table: str, day: date) -> str:
    """At most 63 bytes, PostgreSQL's limit: a long table name is cut and made unique by a hash."""
    suffix = f"_p{day:%Y%m%d}"
    if len(table) + len(suffix) <= _MAX_NAME:
        return table + suffix
    digest = hashlib.sha256(table.encode()).hexdigest()[:8]
    return f"{table[: _MAX_NAME - len(suffix) - 9]}_{digest}{suffix}"


def day_of_partition(name: str) -> date | None:
    """The day that a partition's name tells; None for a table that is not one of ours."""
    match = _SUFFIX.search(name)
    if match is None:
        return None
    try:
        return datetime.strptime(match.group(1), "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


def _first_id(day: date) -> int:
    return first_id_at(int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 10**6)
