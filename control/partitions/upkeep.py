"""Upkeep of the tables of records: days made ahead, old ones dropped, search indexes by policy.

`run` and `prune_rows` are called by the heart's thread. Building an index may take minutes and
happens on the thread "control-search-index"; `_building` lets one run at a time in this
process, an advisory lock one in the installation.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import Error as DatabaseProblem
from django.db import OperationalError, connections, transaction

from control.partitions import merged, search
from control.partitions import tables as partition_tables
from control.partitions.days import id_range
from control.partitions.on_demand import ALIAS, ensure_range, forget
from control.ports.tables import TableSpec, tables

logger = logging.getLogger(__name__)

INTERVAL_S = 3600.0
ROWS_INTERVAL_S = 10.0
DAYS_AHEAD = 2
# One transaction of SQLite's, short enough for writers to wait for; and at most so long in a
# beat.
CHUNK_ROWS = 1_000
ROWS_BUDGET_S = 1.0
LOCK_NOT_AVAILABLE = "55P03"
_INDEX_LOCK = 0x636F_6C6C_6563_7400

_building = threading.Lock()


def run(*, today: date | None = None, using: str = ALIAS) -> None:
    """Make days ahead, drop those past their time, and see to the search indexes."""
    connection = connections[using]
    today = today or datetime.now(UTC).date()
    for spec in tables():
        if not partition_tables.is_partitioned(connection, spec.table):
            continue
        first, _ = id_range(today)
        _, end = id_range(today + timedelta(days=DAYS_AHEAD))
        # Asked of the database, not of memory: another process may have dropped what was known.
        forget(spec.table, using=using)
        ensure_range(spec.table, first, end - 1, using=using)
        _drop_old(spec.table, oldest_kept_of(spec, today), using=using)
    changes = index_changes(today=today, using=using)
    if changes and _building.acquire(blocking=False):
        threading.Thread(
            target=_build, args=(changes, using), name="control-search-index", daemon=True
        ).start()


def oldest_kept(today: date, days: int | None = None) -> date:
    """The oldest day whose records are kept."""
    kept = settings.COLLECTOR.retention.records_days if days is None else days
    return today - timedelta(days=kept)


def oldest_kept_of(spec: TableSpec, today: date, days: int | None = None) -> date:
    """The oldest day kept of a table; `days` are those of tables without a number of their own."""
    return oldest_kept(today, spec.kept_days() if spec.kept_days is not None else days)


def ping(using: str = ALIAS) -> None:
    """Ask the database of records for a sign of life; raises when there is none."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT 1")


def prune_rows(*, today: date | None = None, using: str = ALIAS) -> None:
    """Delete old rows of tables without partitions, a little at a time."""
    today = today or datetime.now(UTC).date()
    due = time.monotonic() + ROWS_BUDGET_S
    for table in merged.ending():
        merged.delete_before(
            table, oldest_kept(today), using=using, go_on=lambda: time.monotonic() < due
        )
    for spec in tables():
        delete_before(
            spec.table,
            oldest_kept_of(spec, today),
            using=using,
            go_on=lambda: time.monotonic() < due,
        )


def delete_before(
    table: str,
    day: date,
    *,
    using: str = ALIAS,
    go_on: Callable[[], bool] = lambda: True,
    progress: Callable[[int], None] = lambda rows: None,
) -> int:
    """Delete the rows of days before `day` from a plain table, chunk by chunk; returns how many.

    A partitioned table is left alone: `drop_before` is for those.
    """
    connection = connections[using]
    if partition_tables.is_partitioned(connection, table) or not _exists(connection, table):
        return 0
    before, _ = id_range(day)
    name = connection.ops.quote_name(table)
    deleted = 0
    while go_on():
        with transaction.atomic(using=using), connection.cursor() as cursor:
            cursor.execute(
                f"DELETE FROM {name} WHERE id IN "  # noqa: S608  the name is quoted
                f"(SELECT id FROM {name} WHERE id < %s ORDER BY id LIMIT {CHUNK_ROWS})",
                [before],
            )
            rows = cursor.rowcount
        deleted += rows
        progress(rows)
        if rows < CHUNK_ROWS:
            break
    return deleted


def drop_before(table: str, day: date, *, using: str = ALIAS) -> list[partition_tables.Partition]:
    """Drop the partitions of days before `day`; returns those dropped."""
    dropped = partition_tables.drop_before(connections[using], table, day)
    if dropped:
        forget(table, using=using)
    return dropped


def _drop_old(table: str, day: date, *, using: str) -> None:
    try:
        drop_before(table, day, using=using)
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", "") != LOCK_NOT_AVAILABLE:
            raise
        # Somebody reads the table for long; the day can go an hour later.
        logger.warning("old partitions are in use and are dropped later", extra={"table": table})


def partitions(table: str, *, using: str = ALIAS) -> list[partition_tables.Partition]:
    """The table's partitions, oldest first, with sizes and estimates; none on SQLite."""
    return partition_tables.listing(connections[using], table)


def index_changes(*, today: date, using: str = ALIAS) -> list[tuple[str, str, str]]:
    """What differs from the policy: ("build" or "drop", partition, column)."""
    connection = connections[using]
    policy = settings.COLLECTOR.retention.search_index
    changes: list[tuple[str, str, str]] = []
    for spec in _searchable():
        for partition in partition_tables.listing(connection, spec.table):
            closed = partition.is_closed(today)
            if search.wanted(policy, closed=closed) and not partition.search_index:
                changes.append(("build", partition.name, spec.search_column))
            elif search.unwanted(policy, closed=closed) and (
                partition.search_index or partition.broken_index
            ):
                changes.append(("drop", partition.name, spec.search_column))
    return changes


def apply_index_changes(changes: list[tuple[str, str, str]], *, using: str = ALIAS) -> int:
    """Build and drop the indexes, beside running writes; returns how many were changed."""
    connection = connections[using]
    done = 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_INDEX_LOCK])
        if not cursor.fetchone()[0]:
            return 0
        try:
            for change, partition, column in changes:
                done += _change_one(connection, change, partition, column)
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [_INDEX_LOCK])
    return done


def _change_one(connection: Any, change: str, partition: str, column: str) -> int:
    try:
        if change == "build":
            search.build(connection, partition, column)
        else:
            search.drop(connection, partition)
    except DatabaseProblem as error:
        # The partition may have been dropped meanwhile; anything else shows again next hour.
        logger.warning(
            "search index not changed",
            extra={"partition": partition, "change": change, "error": str(error).strip()},
        )
        return 0
    return 1


def _build(changes: list[tuple[str, str, str]], using: str) -> None:
    try:
        apply_index_changes(changes, using=using)
    except DatabaseProblem as error:
        logger.warning("search indexes not changed", extra={"error": type(error).__name__})
    finally:
        connections.close_all()
        _building.release()


def _searchable() -> list[TableSpec]:
    return [spec for spec in tables() if spec.search_column]


def _exists(connection: Any, table: str) -> bool:
    return table in connection.introspection.table_names()
