"""Merged rows into PostgreSQL: one upsert a table, in the batch's transaction.

The rows of a statement are sorted by key, and the tables of a merge come in one order, so that two
batches which meet on the same rows wait for each other and never in a circle.  `KnownKeys` guards
itself; everything else is the worker's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from psycopg import sql

from control.ports.merging import MAX_TOTAL, MergedRow, MergedTable, MergeSpec
from control.ports.tables import Column
from sinks.merging import KnownKeys, MergeJob, without_room
from sinks.postgresql.connections import Connection

_ARRAYS = {"int8": "int8", "int4": "int4", "float8": "float8", "bool": "bool", "text": "text",
           "timestamptz": "int8", "jsonb": "text"}  # fmt: skip
_VALUES = {
    "timestamptz": "timestamptz 'epoch' + {} * interval '1 microsecond'",
    "jsonb": "{}::jsonb",
}


class Merging:
    """The merges of one sink object."""

    def __init__(self) -> None:
        self._known = KnownKeys()

    def store(self, connection: Connection, job: MergeJob) -> None:
        """Add the job's rows to what is there, in the open transaction."""
        if not job.count:
            return

        def no_room(spec: MergeSpec, rows: Sequence[MergedRow]) -> Mapping[str, MergedRow]:
            return without_room(
                spec,
                rows,
                known=self._known,
                present=lambda table, keys: _present(connection, table, keys),
                counts=lambda table, owner, owners: _counts(connection, table, owner, owners),
            )

        for table, rows in job.rows(no_room):
            connection.execute(upsert(table), _arrays(table, rows))


@lru_cache(maxsize=64)
def upsert(table: MergedTable) -> sql.Composed:
    """INSERT of columns as arrays that adds to the rows which are there."""
    columns = table.columns
    places = [sql.SQL(f"c{n}") for n in range(len(columns))]
    arrays = sql.SQL(", ").join(sql.SQL(f"%s::{_ARRAYS[column.kind]}[]") for column in columns)
    values = sql.SQL(", ").join(
        sql.SQL(_VALUES.get(column.kind, "{}")).format(place)
        for column, place in zip(columns, places, strict=True)
    )
    return sql.SQL(
        "INSERT INTO {table} AS held ({columns}) SELECT {values} FROM unnest({arrays}) "
        "AS given ({places}) ON CONFLICT ({key}) DO UPDATE SET {changes}"
    ).format(
        table=sql.Identifier(table.table),
        columns=sql.SQL(", ").join(sql.Identifier(column.name) for column in columns),
        values=values,
        arrays=arrays,
        places=sql.SQL(", ").join(places),
        key=sql.SQL(", ").join(map(sql.Identifier, table.key)),
        changes=sql.SQL(", ").join(_changes(table)),
    )


def _changes(table: MergedTable) -> list[sql.Composed]:
    # Beyond int8 a sum would be an error, and its batch never be stored: it stops there.
    most = MAX_TOTAL
    total = (
        f"{{name}} = greatest(least(held.{{name}}::numeric + excluded.{{name}}, {most}), -{most})"
    )
    forms = [
        *((name, total) for name in table.sums),
        *((name, "{name} = least(held.{name}, excluded.{name})") for name in table.lowest),
        *((name, "{name} = greatest(held.{name}, excluded.{name})") for name in table.highest),
    ]
    return [sql.SQL(form).format(name=sql.Identifier(name)) for name, form in forms]


def _arrays(table: MergedTable, rows: Sequence[MergedRow]) -> list[list[object]]:
    return [[_value(column, row[n]) for row in rows] for n, column in enumerate(table.columns)]


def _value(column: Column, value: object) -> object:
    return value.decode() if column.kind == "jsonb" and isinstance(value, bytes) else value


def _present(connection: Connection, table: MergedTable, keys: list[str]) -> set[str]:
    first = sql.Identifier(table.columns[0].name)
    rows = connection.execute(
        sql.SQL("SELECT {key} FROM {table} WHERE {key} = ANY (%s)").format(
            key=first, table=sql.Identifier(table.table)
        ),
        [keys],
    ).fetchall()
    return {str(row[0]) for row in rows}


def _counts(
    connection: Connection, table: MergedTable, owner: str, owners: list[str]
) -> dict[str, int]:
    rows = connection.execute(
        sql.SQL(
            "SELECT {owner}, count(*) FROM {table} WHERE {owner} = ANY (%s) GROUP BY {owner}"
        ).format(owner=sql.Identifier(owner), table=sql.Identifier(table.table)),
        [owners],
    ).fetchall()
    return {str(row[0]): int(str(row[1])) for row in rows}
