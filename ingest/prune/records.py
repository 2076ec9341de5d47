"""Owns: deleting the records that arrived before a day, a table at a time.

A partitioned table loses whole days at once; any other (SQLite) loses runs of ids in short
transactions, so that writers get their turn. Runs on the caller's thread, outside a transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from django.db import connections, transaction

from control.partitions import tables as day_tables
from control.ports.tables import tables
from pipeline.ids import first_id_at

CHUNK_ROWS = 5_000

Progress = Callable[[str, int, int], None]  # table, rows done, rows in all


@dataclass(frozen=True, kw_only=True)
class Pruned:
    table: str
    rows: int  # of partitions: PostgreSQL's estimate
    partitions: tuple[str, ...] = ()
    estimated: bool = False


def first_id_of(day: date) -> int:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return first_id_at(int(midnight.timestamp()) * 1_000_000)


def prune_records(
    before: date,
    *,
    dry_run: bool,
    on_progress: Progress,
    alias: str = "records",
    chunk_rows: int = CHUNK_ROWS,
) -> list[Pruned]:
    """Delete what arrived before the day (UTC); of a dry run, what would be deleted."""
    connection = connections[alias]
    pruned = []
    for table in sorted({spec.table for spec in tables()}):
        if day_tables.is_partitioned(connection, table):
            pruned.append(_drop_days(connection, table, before, dry_run=dry_run))
        else:
            pruned.append(
                _delete_rows(
                    connection, table, first_id_of(before), dry_run, chunk_rows, on_progress
                )
            )
    return pruned


def _drop_days(connection: Any, table: str, before: date, *, dry_run: bool) -> Pruned:
    if dry_run:
        days = [each for each in day_tables.listing(connection, table) if each.day < before]
    else:
        days = day_tables.drop_before(connection, table, before)
    return Pruned(
        table=table,
        rows=sum(max(day.rows, 0) for day in days),
        partitions=tuple(day.name for day in days),
        estimated=True,
    )


def _delete_rows(
    connection: Any,
    table: str,
    end_id: int,
    dry_run: bool,
    chunk_rows: int,
    on_progress: Progress,
) -> Pruned:
    name = connection.ops.quote_name(table)  # of a registered table, never from outside
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {name} WHERE id < %s", [end_id])  # noqa: S608
        total: int = cursor.fetchone()[0]
    if dry_run:
        return Pruned(table=table, rows=total)
    done = 0
    on_progress(table, done, total)
    while True:
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute(
                f"DELETE FROM {name} WHERE id IN "  # noqa: S608
                f"(SELECT id FROM {name} WHERE id < %s ORDER BY id LIMIT %s)",
                [end_id, chunk_rows],
            )
            deleted: int = cursor.rowcount
        done += deleted
        on_progress(table, done, max(total, done))
        if deleted < chunk_rows:
            return Pruned(table=table, rows=done)
