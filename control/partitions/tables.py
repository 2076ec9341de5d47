"""Partitions made, listed and dropped: SQL on one connection, PostgreSQL only.

Made by `CREATE TABLE (LIKE …)` and `ATTACH`, which does not lock out readers and writers of the
table as `CREATE … PARTITION OF` would; taken away by `DETACH CONCURRENTLY` and `DROP`. An
advisory lock for the table makes processes take turns. There is no DEFAULT partition: it would
have to be scanned whenever one is attached.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

from django.db import ProgrammingError, transaction

from control.partitions import search
from control.partitions.days import day_of_partition, id_range, partition_name

logger = logging.getLogger(__name__)

LOCK_TIMEOUT_MS = 5_000
# Waited for on the heart's thread, which has more to do.
DROP_LOCK_TIMEOUT_MS = 2_000
_BOUNDS = re.compile(r"FROM \('?(\d+)'?\) TO \('?(\d+)'?\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    table: str
    name: str
    day: date
    first_id: int
    end_id: int
    rows: int
    """PostgreSQL's estimate; -1 while it has none."""
    total_bytes: int
    search_index: bool
    """Whether the words are searched by an index."""
    broken_index: bool = False
    """Whether there is one that is incomplete, or on another expression than is searched."""

    def is_closed(self, today: date) -> bool:
        """Whether nothing is written to it any more, save by a replay."""
        return self.day < today


def supported(connection: Any) -> bool:
    return bool(connection.vendor == "postgresql")


def is_partitioned(connection: Any, table: str) -> bool:
    if not supported(connection):
        return False
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relkind = 'p' FROM pg_class "
            "WHERE relname = %s AND relnamespace = current_schema()::regnamespace",
            [table],
        )
        row = cursor.fetchone()
    return row is not None and bool(row[0])


def create(
    connection: Any,
    table: str,
    days: Iterable[date],
    *,
    search_column: str = "",
) -> list[date]:
    """Make the days' partitions that are missing; returns those made. Safe to call at any time."""
    wanted = sorted(set(days))
    if not wanted or not is_partitioned(connection, table):
        return []
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        # First of all, before the table itself is touched, so that nobody waits in a circle.
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_lock_key(table)])
        cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
        attached = {partition.day for partition in listing(connection, table)}
        made = [day for day in wanted if day not in attached]
        for day in made:
            _create_one(connection, cursor, table, day, search_column)
    if made:
        logger.info(
            "partitions made", extra={"table": table, "days": [day.isoformat() for day in made]}
        )
    return made


def _create_one(connection: Any, cursor: Any, table: str, day: date, search_column: str) -> None:
    quote = connection.ops.quote_name
    name = partition_name(table, day)
    first, end = id_range(day)
    # Left behind detached by an interrupted drop, with the day's records still in it: taken back.
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [quote(name)])
    if not cursor.fetchone()[0]:
        cursor.execute(
            f"CREATE TABLE {quote(name)} (LIKE {quote(table)} "
            "INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMPRESSION "
            "INCLUDING INDEXES)"
        )
        if search_column:
            cursor.execute(search.create_sql(connection, name, search_column, concurrently=False))
    cursor.execute(
        f"ALTER TABLE {quote(table)} ATTACH PARTITION {quote(name)} "
        f"FOR VALUES FROM ({first:d}) TO ({end:d})"
    )


def listing(connection: Any, table: str) -> list[Partition]:
    """The table's partitions, oldest first, by the catalogue alone: no table is read."""
    if not supported(connection):
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT c.relname, pg_get_expr(c.relpartbound, c.oid), c.reltuples::bigint,
                   pg_total_relation_size(c.oid), c.oid
              FROM pg_inherits h
              JOIN pg_class c ON c.oid = h.inhrelid
              JOIN pg_class p ON p.oid = h.inhparent
             WHERE p.relname = %s AND p.relnamespace = current_schema()::regnamespace
               AND NOT h.inhdetachpending
            """,
            [table],
        )
        rows = cursor.fetchall()
        cursor.execute(
            "SELECT i.indrelid, c.relname, i.indisvalid, pg_get_indexdef(i.indexrelid) "
            "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = ANY(%s)",
            [[row[4] for row in rows]],
        )
        usable = {
            (table_oid, index): valid and search.is_current(definition)
            for table_oid, index, valid, definition in cursor.fetchall()
        }
    found = []
    for name, bounds, estimate, size, oid in rows:
        day, match = day_of_partition(name), _BOUNDS.search(bounds or "")
        if day is None or match is None:
            continue
        index_usable = usable.get((oid, search.index_name(name)))
        found.append(
            Partition(
                table=table,
                name=name,
                day=day,
                first_id=int(match.group(1)),
                end_id=int(match.group(2)),
                rows=estimate,
                total_bytes=size,
                search_index=index_usable is True,
                broken_index=index_usable is False,
            )
        )
    return sorted(found, key=lambda partition: partition.day)


def drop_before(connection: Any, table: str, day: date) -> list[Partition]:
    """Drop the partitions of days before `day`; returns those dropped.

    Best outside a transaction: inside one the table is locked until its end. Another process
    that is dropping already is left to it.
    """
    if not is_partitioned(connection, table):
        return []
    key = _lock_key(table)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [key])
        if not cursor.fetchone()[0]:
            return []
        try:
            cursor.execute(f"SET lock_timeout = {DROP_LOCK_TIMEOUT_MS}")
            _finish_interrupted(connection, cursor, table, day)
            dropped = []
            for partition in listing(connection, table):
                if partition.day < day:
                    _drop_one(connection, cursor, table, partition.name)
                    dropped.append(partition)
        finally:
            cursor.execute("RESET lock_timeout")
            cursor.execute("SELECT pg_advisory_unlock(%s)", [key])
    if dropped:
        logger.info(
            "partitions dropped",
            extra={"table": table, "days": [partition.day.isoformat() for partition in dropped]},
        )
    return dropped


def _drop_one(connection: Any, cursor: Any, table: str, name: str) -> None:
    quote = connection.ops.quote_name
    how = "" if connection.in_atomic_block else " CONCURRENTLY"
    cursor.execute(f"ALTER TABLE {quote(table)} DETACH PARTITION {quote(name)}{how}")
    cursor.execute(f"DROP TABLE IF EXISTS {quote(name)}")


def _finish_interrupted(connection: Any, cursor: Any, table: str, day: date) -> None:
    """Complete what a drop that was killed half-way left: pending detaches, detached tables."""
    quote = connection.ops.quote_name
    cursor.execute(
        "SELECT c.relname FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid "
        "JOIN pg_class p ON p.oid = h.inhparent WHERE p.relname = %s "
        "AND p.relnamespace = current_schema()::regnamespace AND h.inhdetachpending",
        [table],
    )
    for (name,) in cursor.fetchall():
        try:
            cursor.execute(f"ALTER TABLE {quote(table)} DETACH PARTITION {quote(name)} FINALIZE")
        except ProgrammingError:
            # Finished by somebody else meanwhile.
            continue
    cursor.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND NOT relispartition "
        "AND relnamespace = current_schema()::regnamespace AND relname LIKE %s",
        [f"{table[:40]}%"],
    )
    for (name,) in cursor.fetchall():
        its_day = day_of_partition(name)
        if its_day is not None and its_day < day and name == partition_name(table, its_day):
            cursor.execute(f"DROP TABLE IF EXISTS {quote(name)}")


def _lock_key(table: str) -> int:
    """A signed 64-bit number for the table, the same in every process."""
    digest = hashlib.sha256(f"collector partitions {table}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
