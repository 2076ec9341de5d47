"""Owns: which stored records a day of retention takes away, table by table.

A partitioned table (PostgreSQL) loses whole days at once; any other loses rows in short
transactions, so that writers get their turn. Runs on the caller's thread, outside a transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from django.db import connections

from control.partitions import days as id_days
from control.partitions import merged, upkeep
from control.partitions import tables as day_tables
from control.ports.merging import MergedTable
from control.ports.tables import TableSpec, tables

Progress = Callable[[str, int, int], None]  # table, rows done, rows in all


@dataclass(frozen=True, kw_only=True)
class Pruned:
    table: str
    before: date
    rows: int  # of partitions: PostgreSQL's estimate
    partitions: tuple[str, ...] = ()
    partitioned: bool = False


def prune_records(
    today: date, days: int, *, dry_run: bool, on_progress: Progress, using: str = "records"
) -> list[Pruned]:
    """Delete what arrived more than `days` before today; of a dry run, what would be deleted.

    A table that has a number of days of its own goes by that.
    """
    specs = {spec.table: spec for spec in tables()}
    pruned = [
        _prune(specs[table], today, days, dry_run=dry_run, on_progress=on_progress, using=using)
        for table in sorted(specs)
    ]
    before = upkeep.oldest_kept(today, days)
    return pruned + [
        _prune_merged(table, before, dry_run=dry_run, on_progress=on_progress, using=using)
        for table in merged.ending()
    ]


def _prune_merged(
    table: MergedTable, before: date, *, dry_run: bool, on_progress: Progress, using: str
) -> Pruned:
    total = merged.count_before(table, before, using=using)
    if dry_run:
        return Pruned(table=table.table, before=before, rows=total)
    done = 0

    def progress(rows: int) -> None:
        nonlocal done
        done += rows
        on_progress(table.table, done, max(total, done))

    rows = merged.delete_before(table, before, using=using, progress=progress)
    return Pruned(table=table.table, before=before, rows=rows)


def _prune(
    spec: TableSpec, today: date, days: int, *, dry_run: bool, on_progress: Progress, using: str
) -> Pruned:
    before = upkeep.oldest_kept_of(spec, today, days)
    if day_tables.is_partitioned(connections[using], spec.table):
        return _drop_days(spec.table, before, dry_run=dry_run, using=using)
    return _delete_rows(spec.table, before, dry_run=dry_run, on_progress=on_progress, using=using)


def _drop_days(table: str, before: date, *, dry_run: bool, using: str) -> Pruned:
    if dry_run:
        gone = [day for day in upkeep.partitions(table, using=using) if day.day < before]
    else:
        gone = upkeep.drop_before(table, before, using=using)
    return Pruned(
        table=table,
        before=before,
        rows=sum(max(day.rows, 0) for day in gone),
        partitions=tuple(day.name for day in gone),
        partitioned=True,
    )


def _delete_rows(
    table: str, before: date, *, dry_run: bool, on_progress: Progress, using: str
) -> Pruned:
    connection = connections[using]
    first_kept, _ = id_days.id_range(before)
    with connection.cursor() as cursor:
        name = connection.ops.quote_name(table)
        cursor.execute(f"SELECT count(*) FROM {name} WHERE id < %s", [first_kept])  # noqa: S608
        total: int = cursor.fetchone()[0]
    if dry_run:
        return Pruned(table=table, before=before, rows=total)
    done = 0

    def progress(rows: int) -> None:
        nonlocal done
        done += rows
        on_progress(table, done, max(total, done))

    return Pruned(
        table=table,
        before=before,
        rows=upkeep.delete_before(table, before, using=using, progress=progress),
    )
