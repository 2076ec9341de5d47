"""SQL of the roller, for both databases: reads a chunk's rows, replaces its rollups.

Every read names its targets, so that it goes by an index that begins with the target.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from healthmon.history.models import MINUTE
from healthmon.history.tallies import Tally
from sinks.sqlite.values import time_text

RESULTS = "healthmon_proberesult"
ROLLUPS = "healthmon_rollup"
_COLUMNS = "ok, degraded, failed, void, latency_sum_ms, latency_max_ms, histogram"
_REPLACED = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS.split(", "))
_KEY = "target_id, span_s, start"


def time_of(connection: Any, epoch_s: int) -> str:
    """A time as an SQL literal."""
    if connection.vendor == "postgresql":
        return f"to_timestamp({epoch_s:d})"
    return f"'{time_text(epoch_s * 1_000_000)}'"


def epoch_of(connection: Any, column: str) -> str:
    """A stored time in whole seconds since 1970, as SQL."""
    if connection.vendor == "postgresql":
        return f"floor(extract(epoch FROM {column}))::bigint"
    return f"CAST(strftime('%s', {column}) AS INTEGER)"


def between(connection: Any, column: str, start_s: int, end_s: int) -> str:
    """The condition that a time is in a stretch."""
    start, end = time_of(connection, start_s), time_of(connection, end_s)
    return f"{column} >= {start} AND {column} < {end}"


def one_of(connection: Any, column: str, ids: Iterable[int]) -> str:
    """The condition that a number is one of these."""
    numbers = ",".join(f"{int(number):d}" for number in ids)
    if connection.vendor == "postgresql":
        # An array, not a list: parsed once, whatever its length.
        return f"{column} = ANY('{{{numbers}}}'::bigint[])"
    return f"{column} IN ({numbers})"


def fetch(connection: Any, statement: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        rows: list[Any] = cursor.fetchall()
    return rows


def results_where(connection: Any, start_s: int, ids: tuple[int, int]) -> str:
    """The condition for the results of a minute, which are among these ids."""
    return f"id >= {ids[0]:d} AND id <= {ids[1]:d} AND " + between(
        connection, "timestamp", start_s, start_s + MINUTE
    )


def rollups_where(connection: Any, span_s: int, start_s: int, end_s: int) -> str:
    return f"span_s = {span_s:d} AND {between(connection, 'start', start_s, end_s)}"


def targets(connection: Any, table: str, where: str) -> list[int]:
    """The targets that have rows there, in order."""
    statement = f"SELECT DISTINCT target_id FROM {table} WHERE {where} ORDER BY target_id"  # noqa: S608
    return [row[0] for row in fetch(connection, statement)]


def read_results(connection: Any, where: str, ids: Sequence[int]) -> list[Any]:
    condition = f"{one_of(connection, 'target_id', ids)} AND {where}"
    return fetch(
        connection,
        f"SELECT target_id, outcome, latency_ms FROM {RESULTS} WHERE {condition}",  # noqa: S608
    )


def read_rollups(connection: Any, where: str, ids: Sequence[int]) -> list[Any]:
    condition = f"{one_of(connection, 'target_id', ids)} AND {where}"
    return fetch(
        connection,
        f"SELECT target_id, {_COLUMNS} FROM {ROLLUPS} WHERE {condition}",  # noqa: S608
    )


def replace_rollups(connection: Any, span_s: int, start_s: int, tallies: dict[int, Tally]) -> None:
    """Write one rollup for each target, in the place of what was there."""
    rows = [(target_id, *tallies[target_id].row()) for target_id in sorted(tallies)]
    if not rows:
        return
    start = time_of(connection, start_s)
    conflict = f"ON CONFLICT ({_KEY}) DO UPDATE SET {_REPLACED}"
    head = f"INSERT INTO {ROLLUPS} ({_KEY}, {_COLUMNS})"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                f"{head} SELECT t, {span_s:d}, {start}, a, b, c, d, e, f, g FROM "  # noqa: S608
                "unnest(%s::bigint[], %s::int[], %s::int[], %s::int[], %s::int[], %s::float8[], "
                f"%s::float8[], %s::bytea[]) AS r(t, a, b, c, d, e, f, g) {conflict}",
                [list(column) for column in zip(*rows, strict=True)],
            )
        else:
            cursor.executemany(
                f"{head} VALUES (%s, {span_s:d}, {start}, %s, %s, %s, %s, %s, %s, %s) {conflict}",
                rows,
            )
