"""Emptying the databases after a transactional test: only those tables that hold something.

Django's own flush empties every table there is and then makes content types, permissions and what
else `post_migrate` brings anew; with a hundred tables that takes longer than most tests.  The first
time it is done in full, and what is there afterwards is remembered; from then on the tables with
rows are emptied, and the remembered ones are left alone unless they have changed.  Runs on the main
test thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.core.management import call_command
from django.core.management.color import no_style
from django.db import Error as DatabaseProblem
from django.db import connections
from django.test import TransactionTestCase


@dataclass(frozen=True, slots=True)
class _Kept:
    """The rows that a flush leaves, by table, in one database."""

    database: str
    rows: dict[str, list[Any]]


_kept: dict[str, _Kept] = {}


def install() -> None:
    """Have every transactional test end so."""
    TransactionTestCase._fixture_teardown = _empty_all  # type: ignore[attr-defined]


def _empty_all(case: Any) -> None:
    for alias in case._databases_names(include_mirrors=False):
        empty(alias)


def empty(alias: str) -> None:
    """As `manage.py flush` leaves the database."""
    kept = _kept.get(alias)
    if kept is not None and kept.database == _name(alias):
        try:
            if _emptied(alias, kept):
                return
        except DatabaseProblem:
            connections[alias].close()
    call_command(
        "flush", verbosity=0, interactive=False, database=alias,
        reset_sequences=False, allow_cascade=False, inhibit_post_migrate=False,
    )  # fmt: skip
    _kept[alias] = _Kept(_name(alias), {one: _rows(alias, one) for one in _with_rows(alias)})


def _emptied(alias: str, kept: _Kept) -> bool:
    """Empty what a flush would; False when what it keeps is no longer as it was."""
    connection = connections[alias]
    filled = [table for table in _with_rows(alias) if table not in kept.rows]
    if filled:
        statements = connection.ops.sql_flush(
            no_style(), filled, reset_sequences=False, allow_cascade=True
        )
        connection.ops.execute_sql_flush(statements)
    return all(_rows(alias, table) == rows for table, rows in kept.rows.items())


def _with_rows(alias: str) -> list[str]:
    connection = connections[alias]
    quote = connection.ops.quote_name
    tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
    found: list[str] = []
    with connection.cursor() as cursor:
        for start in range(0, len(tables), 100):
            asked = " UNION ALL ".join(
                f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {quote(table)})"
                for table in tables[start : start + 100]
            )
            cursor.execute(asked)
            found += [row[0] for row in cursor.fetchall()]
    return found


def _rows(alias: str, table: str) -> list[Any]:
    connection = connections[alias]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)} ORDER BY 1")
        return list(cursor.fetchall())


def _name(alias: str) -> str:
    return str(connections[alias].settings_dict["NAME"])
