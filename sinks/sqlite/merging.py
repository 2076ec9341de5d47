"""Merged rows into SQLite: upserts of many rows each, in the transaction of their proof.

Called with the sink's lock held, inside its transactions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain

from control.ports.merging import MAX_TOTAL, MergedRow, MergedTable, MergeSpec
from sinks.merging import KnownKeys, MergeJob, without_room
from sinks.sqlite.values import convert_rows

_ROWS_A_STATEMENT = 50
_MAX_VARIABLES = 900


class Merging:
    """The merges of one sink object."""

    def __init__(self) -> None:
        self._known = KnownKeys()

    def store(
        self, connection: sqlite3.Connection, job: MergeJob, *, look: Callable[[], None]
    ) -> None:
        """Add the job's rows to what is there; `look` is called between statements."""
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
            converted = convert_rows(table.columns, rows)
            most = min(_ROWS_A_STATEMENT, _MAX_VARIABLES // len(table.columns))
            for start in range(0, len(converted), most):
                look()
                some = converted[start : start + most]
                connection.execute(upsert(table, len(some)), list(chain.from_iterable(some)))


@lru_cache(maxsize=256)
def upsert(table: MergedTable, rows: int) -> str:
    """INSERT of so many rows that adds to those which are there."""
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    marks = f"({', '.join('?' * len(table.columns))})"
    return (
        f'INSERT INTO "{table.table}" AS held ({names}) VALUES '  # noqa: S608
        f"{', '.join([marks] * rows)} "
        f"ON CONFLICT ({', '.join(_quoted(table.key))}) DO UPDATE SET {', '.join(_changes(table))}"
    )


def _quoted(names: Sequence[str]) -> list[str]:
    return [f'"{name}"' for name in names]


def _changes(table: MergedTable) -> Iterator[str]:
    for name in _quoted(table.sums):
        # Beyond int8 the sum is a float, and no longer exact: it stops there.
        yield f"{name} = max(min(held.{name} + excluded.{name}, {MAX_TOTAL}), -{MAX_TOTAL})"
    for name in _quoted(table.lowest):
        yield f"{name} = min(held.{name}, excluded.{name})"
    for name in _quoted(table.highest):
        yield f"{name} = max(held.{name}, excluded.{name})"


def _present(connection: sqlite3.Connection, table: MergedTable, keys: list[str]) -> set[str]:
    found: set[str] = set()
    name = table.columns[0].name
    for some in _in_chunks(keys):
        rows = connection.execute(
            f'SELECT "{name}" FROM "{table.table}" WHERE "{name}" IN '  # noqa: S608
            f"({', '.join('?' * len(some))})",
            some,
        )
        found.update(row[0] for row in rows)
    return found


def _counts(
    connection: sqlite3.Connection, table: MergedTable, owner: str, owners: list[str]
) -> dict[str, int]:
    found: dict[str, int] = {}
    for some in _in_chunks(owners):
        rows = connection.execute(
            f'SELECT "{owner}", count(*) FROM "{table.table}" WHERE "{owner}" IN '  # noqa: S608
            f'({", ".join("?" * len(some))}) GROUP BY "{owner}"',
            some,
        )
        found.update(rows)
    return found


def _in_chunks(values: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(values), _MAX_VARIABLES):
        yield values[start : start + _MAX_VARIABLES]
