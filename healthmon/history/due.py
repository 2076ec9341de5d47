"""Marks on times whose results have changed: SQL, for both databases.

A mark is counted up by every transaction that adds results to its minute, as that transaction's
last statement: the row's lock is held for the shortest while, and whoever sees the count sees the
results.  `sinks` call `touch_minutes` in their worker threads; the roller does the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from healthmon.history.models import MINUTE
from sinks.sqlite.values import time_text

TABLE = "healthmon_rollupdue"


def touch_minutes(minutes: Mapping[int, Iterable[int]], *, vendor: str) -> str:
    """The statement that marks minutes (since 1970) with their first and last ids."""
    return touch(
        ((MINUTE, minute * 60, *minutes[minute]) for minute in sorted(minutes)), vendor=vendor
    )


def touch(marks: Iterable[tuple[int, ...]], *, vendor: str) -> str:
    """The statement for marks of (span, start, first id, last id); "" for none.

    All that touch the same rows do so in the same order, so that none waits in a circle.
    """
    postgresql = vendor == "postgresql"
    now = "now()" if postgresql else "strftime('%Y-%m-%d %H:%M:%f', 'now')"
    yes, least, most = ("true", "LEAST", "GREATEST") if postgresql else ("1", "min", "max")
    values = ", ".join(
        f"({span:d}, {_time(start, postgresql)}, {yes}, 1, {first:d}, {last:d}, {now})"
        for span, start, first, last in sorted(marks)
    )
    if not values:
        return ""
    return (
        f"INSERT INTO {TABLE} "  # noqa: S608  numbers, and words of ours
        "(span_s, start, due, touches, first_id, last_id, touched_at) "
        f"VALUES {values} ON CONFLICT (span_s, start) DO UPDATE SET due = {yes}, "
        f"touches = {TABLE}.touches + 1, "
        f"first_id = {least}({TABLE}.first_id, excluded.first_id), "
        f"last_id = {most}({TABLE}.last_id, excluded.last_id), touched_at = excluded.touched_at"
    )


def epoch_of(start: datetime | str) -> int:
    """A stored time in seconds since 1970; SQLite's own answer is a text."""
    if isinstance(start, str):
        start = datetime.fromisoformat(start)
    if start.tzinfo is None:
        start = start.replace(tzinfo=UTC)
    return int(start.timestamp())


def _time(epoch_s: int, postgresql: bool) -> str:
    return f"to_timestamp({epoch_s:d})" if postgresql else f"'{time_text(epoch_s * 1_000_000)}'"
