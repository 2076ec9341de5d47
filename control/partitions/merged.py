"""Retention of merged tables: rows whose time is past go, a little at a time.

Called by the heart's thread and by the command that prunes; keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from typing import Any

from django.db import connections, transaction

from control.partitions.on_demand import ALIAS
from control.ports.merging import MergedTable, merges

CHUNK_ROWS = 1_000
"""One transaction of SQLite's, short enough for writers to wait for."""


def ending() -> list[MergedTable]:
    """The merged tables whose rows are not kept for ever."""
    return [table for spec in merges() for table in spec.tables if table.ends]


def count_before(table: MergedTable, day: date, *, using: str = ALIAS) -> int:
    """How many rows ended before `day`."""
    connection = connections[using]
    name, ends = map(connection.ops.quote_name, (table.table, table.ends))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT count(*) FROM {name} WHERE {ends} < %s",  # noqa: S608  names are quoted
            [_midnight(connection, day)],
        )
        count: int = cursor.fetchone()[0]
    return count


def delete_before(
    table: MergedTable,
    day: date,
    *,
    using: str = ALIAS,
    go_on: Callable[[], bool] = lambda: True,
    progress: Callable[[int], None] = lambda rows: None,
) -> int:
    """Delete the rows that ended before `day`, chunk by chunk; returns how many."""
    connection = connections[using]
    quote = connection.ops.quote_name
    if table.table not in connection.introspection.table_names():
        return 0
    name, ends = quote(table.table), quote(table.ends)
    key = ", ".join(map(quote, table.key))
    deleted = 0
    while go_on():
        with transaction.atomic(using=using), connection.cursor() as cursor:
            cursor.execute(
                f"DELETE FROM {name} WHERE ({key}) IN "  # noqa: S608  names are quoted
                f"(SELECT {key} FROM {name} WHERE {ends} < %s ORDER BY {ends} LIMIT {CHUNK_ROWS})",
                [_midnight(connection, day)],
            )
            rows = cursor.rowcount
        deleted += rows
        progress(rows)
        if rows < CHUNK_ROWS:
            break
    return deleted


def _midnight(connection: Any, day: date) -> Any:
    return connection.ops.adapt_datetimefield_value(datetime.combine(day, time.min, tzinfo=UTC))
