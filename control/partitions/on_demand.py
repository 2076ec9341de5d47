"""Partitions on demand: before rows are written, the days of their ids are made sure of.

Called by sinks' worker threads for every batch, so the usual answer comes from memory: per
table, the unbroken range of ids that is known to have partitions. `_lock` guards that memory,
never the database.
"""

from __future__ import annotations

import threading
from datetime import date

from django.conf import settings
from django.db import connections

from control.partitions import tables as partition_tables
from control.partitions.days import days_between, id_range
from control.ports.tables import tables

ALIAS = "records"
MAX_DAYS = 400


class KnownRanges:
    """What is known to exist, by (alias, table)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ranges: dict[tuple[str, str], tuple[int, int]] = {}

    def covers(self, alias: str, table: str, first_id: int, last_id: int) -> bool:
        low, end = self._ranges.get((alias, table), (0, 0))
        return low <= first_id and last_id < end

    def add(self, alias: str, table: str, first_id: int, end_id: int) -> None:
        with self._lock:
            low, end = self._ranges.get((alias, table), (first_id, end_id))
            if end_id < low or end < first_id:
                # Not adjacent: what was asked for last is what will be asked for next.
                low, end = first_id, end_id
            self._ranges[(alias, table)] = (min(low, first_id), max(end, end_id))

    def forget(self, alias: str, table: str) -> None:
        with self._lock:
            self._ranges.pop((alias, table), None)


_known = KnownRanges()


def ensure_range(table: str, first_id: int, last_id: int, *, using: str = ALIAS) -> None:
    """Make the partitions that a range of ids needs, both ends included."""
    if _known.covers(using, table, first_id, last_id):
        return
    days = []
    for day in days_between(first_id, last_id):
        days.append(day)
        if len(days) > MAX_DAYS:
            raise ValueError(
                f"records {first_id} to {last_id} of {table} span more than {MAX_DAYS} days"
            )
    if days:
        _create(table, days, using=using)
        _known.add(using, table, id_range(days[0])[0], id_range(days[-1])[1])


def ensure(table: str, day: date, *, using: str = ALIAS) -> None:
    """Make one day's partition, by what the database says and not by what is remembered."""
    _create(table, [day], using=using)
    _known.add(using, table, *id_range(day))


def forget(table: str, *, using: str = ALIAS) -> None:
    """Look again next time: a partition that was known turned out to be gone."""
    _known.forget(using, table)


def search_column_of(table: str) -> str:
    """The column to index in a new partition, "" for none by the policy or the table."""
    if settings.COLLECTOR.retention.search_index != "live":
        return ""
    return next((spec.search_column for spec in tables() if spec.table == table), "")


def _create(table: str, days: list[date], *, using: str) -> None:
    connection = connections[using]
    opened_here = connection.connection is None
    try:
        partition_tables.create(connection, table, days, search_column=search_column_of(table))
    finally:
        # A sink's worker thread has connections of its own and none of Django's to keep.
        if opened_here and not connection.in_atomic_block:
            connection.close()
