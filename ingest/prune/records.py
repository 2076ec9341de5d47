"""Owns: which stored records a day of retention takes away, table by table.

A partitioned table (PostgreSQL) loses whole days at once; any other loses rows in short
transactions, so that writers get their turn. Runs on the caller's thread, outside a transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from django.db import connections

from control.partitions import days, upkeep
from control.partitions import tables as day_tables
from control.ports.tables import tables

Progress = Callable[[str, int, int], None]  # table, rows done, rows in all


@dataclass(frozen=True, kw_only=True)
class Pruned:
    table: str
    rows: int  # of partitions: PostgreSQL's estimate
    partitions: tuple[str, ...] = ()
    partitioned: bool = False


def prune_records(
    before: date, *, dry_run: bool, on_progress: Progress, using: str = "records"
) -> list[Pruned]:
    """Delete what arrived before the day (UTC); of a dry run, what would be deleted."""
    return [
        _drop_days(table, before, dry_run=dry_run, using=using)
        if day_tables.is_partitioned(connections[using], table)
        else _delete_rows(table, before, dry_run=dry_run, on_progress=on_progress, using=using)
        for table in sorted({spec.table for spec in tables()})
    ]


def _drop_days(table: str, before: date, *, dry_run: bool, using: str) -> Pruned:
    if dry_run:
        gone = [day for day in upkeep.partitions(table, using=using) if day.day < before]
    else:
        gone = upkeep.drop_before(table, before, using=using)
    return Pruned(
        table=table,
        rows=sum(max(day.rows, 0) for day in gone),
        partitions=tuple(day.name for day in gone),
        partitioned=True,
    )


def _delete_rows(
    table: str, before: date, *, dry_run: bool, on_progress: Progress, using: str
) -> Pruned:
    connection = connections[using]
    first_kept, _ = days.id_range(before)
    with connection.cursor() as cursor:
        name = connection.ops.quote_name(table)
        cursor.execute(f"SELECT count(*) FROM {name} WHERE id < %s", [first_kept])  # noqa: S608
        total: int = cursor.fetchone()[0]
    if dry_run:
        return Pruned(table=table, rows=total)
    done = 0

    def progress(rows: int) -> None:
        nonlocal done
        done += rows
        on_progress(table, done, max(total, done))

    return Pruned(
        table=table,
        rows=upkeep.delete_before(table, before, using=using, progress=progress),
    )
