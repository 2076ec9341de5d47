"""Rolls results up: minutes from results, hours from minutes, days from hours.

A time is computed anew from all that is below it and replaces what was there, chunk by chunk of
targets, each in a transaction of its own that holds the lock of the time's mark.  A sink counts
the mark up in the transaction that adds results, so that within the lock everything counted is
seen.  The mark is cleared only where its count is what it was before the first chunk: what came
meanwhile leaves it due, and the next call computes the time again.  Any number of rollers may run
at once, and any may die at any point.

Runs on the housekeeping thread; the lock is the mark's row (PostgreSQL) or the file's (SQLite).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import connections, transaction

from healthmon.history import due, statements
from healthmon.history.models import DAY, HOUR, MINUTE
from healthmon.history.retention import first_kept
from healthmon.history.tallies import Tally, tally_results, tally_rollups

ALIAS = "records"
INTERVAL_S = 10.0
BUDGET_S = 4.0
# A time is over for so long before it is rolled up: most of what is late has come by then.
SETTLED_S = {MINUTE: 5, HOUR: 90, DAY: 300}
CHUNK_TARGETS = {MINUTE: 500, HOUR: 200, DAY: 400}
MOST_MARKS = 500
_BELOW = {HOUR: MINUTE, DAY: HOUR}
_ABOVE = {MINUTE: HOUR, HOUR: DAY}


@dataclass(slots=True)
class RolledUp:
    """What a call did; `left` tells whether its time ran out before its work."""

    minutes: int = 0
    hours: int = 0
    days: int = 0
    rollups: int = 0
    left: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    span_s: int
    start_s: int
    touches: int
    ids: tuple[int, int]


def run() -> RolledUp:
    """The housekeeping task."""
    return roll_up(datetime.now(UTC))


def roll_up(
    now: datetime,
    *,
    budget_s: float = BUDGET_S,
    monotonic: Callable[[], float] = time.monotonic,
    using: str = ALIAS,
) -> RolledUp:
    """Roll up what is due, the oldest first, for about `budget_s`; what was begun is finished."""
    done = RolledUp()
    until = monotonic() + budget_s
    connection = connections[using]
    for span_s in (MINUTE, HOUR, DAY):
        for mark in _marks_due(connection, span_s, now):
            if monotonic() >= until:
                done.left = True
                return done
            roller = Roller(connection=connection, span_s=span_s, start_s=mark.start_s)
            done.rollups += roller.roll(touches=mark.touches, now=now)
            if span_s == MINUTE:
                done.minutes += 1
            elif span_s == HOUR:
                done.hours += 1
            else:
                done.days += 1
    return done


class Roller:
    """Rolls up one minute, hour or day."""

    def __init__(self, *, connection: Any, span_s: int, start_s: int) -> None:
        self._connection = connection
        self._span_s = span_s
        self._start_s = start_s

    def roll(self, *, touches: int, now: datetime) -> int:
        """Compute all targets' rollups; `touches` is the mark's count as it was read before."""
        if not self._has_everything_below(now):
            with self._locked():
                self._clear(touches)
            return 0
        mark = self._mark(lock=False)
        rolled = 0
        if mark is not None:
            for chunk in self._chunks(mark):
                rolled += self.roll_chunk(chunk)
        self.finish(touches)
        return rolled

    def roll_chunk(self, target_ids: list[int]) -> int:
        """Compute some targets' rollups from what is stored now."""
        with self._locked():
            mark = self._mark(lock=True)
            if mark is None:
                return 0
            tallies = self._tallies(mark, target_ids)
            statements.replace_rollups(self._connection, self._span_s, self._start_s, tallies)
        return len(tallies)

    def finish(self, touches: int) -> None:
        """Clear the mark unless it was touched meanwhile, and mark the time above."""
        with self._locked():
            self._clear(touches)
            above = _ABOVE.get(self._span_s)
            if above is not None:
                marks = [(above, self._start_s // above * above, 0, 0)]
                self._execute(due.touch(marks, vendor=self._connection.vendor))

    def _tallies(self, mark: Mark, target_ids: list[int]) -> dict[int, Tally]:
        connection, table = self._connection, self._source(mark)
        if self._span_s == MINUTE:
            return tally_results(statements.read_results(connection, table[1], target_ids))
        return tally_rollups(statements.read_rollups(connection, table[1], target_ids))

    def _source(self, mark: Mark) -> tuple[str, str]:
        """Table and condition of what this time is computed from."""
        if self._span_s == MINUTE:
            where = statements.results_where(self._connection, self._start_s, mark.ids)
            return statements.RESULTS, where
        where = statements.rollups_where(
            self._connection, _BELOW[self._span_s], self._start_s, self._start_s + self._span_s
        )
        return statements.ROLLUPS, where

    def _chunks(self, mark: Mark) -> Iterator[list[int]]:
        # A target whose first result comes after this is seen next time: the mark is touched.
        target_ids = statements.targets(self._connection, *self._source(mark))
        size = CHUNK_TARGETS[self._span_s]
        for start in range(0, len(target_ids), size):
            yield target_ids[start : start + size]

    def _has_everything_below(self, now: datetime) -> bool:
        """Whether all that the time is computed from is kept; else it stays as it was rolled up."""
        return self._start_s >= first_kept(_BELOW.get(self._span_s, 0), now)

    # --- the mark --------------------------------------------------------------------------

    def _locked(self) -> AbstractContextManager[None]:
        # On SQLite, transactions begin as writers: nobody else writes until it ends.
        made: AbstractContextManager[None] = transaction.atomic(using=self._connection.alias)
        return made

    def _mark(self, *, lock: bool) -> Mark | None:
        end = " FOR UPDATE" if lock and self._connection.vendor == "postgresql" else ""
        rows = statements.fetch(
            self._connection,
            f"SELECT touches, first_id, last_id FROM {due.TABLE} WHERE {self._which()}{end}",  # noqa: S608
        )
        if not rows:
            return None
        touches, first_id, last_id = rows[0]
        return Mark(self._span_s, self._start_s, touches, (first_id, last_id))

    def _clear(self, touches: int) -> None:
        no = "false" if self._connection.vendor == "postgresql" else "0"
        self._execute(
            f"UPDATE {due.TABLE} SET due = {no} "  # noqa: S608
            f"WHERE {self._which()} AND touches = {touches:d}"
        )

    def _which(self) -> str:
        start = statements.time_of(self._connection, self._start_s)
        return f"span_s = {self._span_s:d} AND start = {start}"

    def _execute(self, statement: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)


def _marks_due(connection: Any, span_s: int, now: datetime) -> list[Mark]:
    """The times to roll up, oldest first; none that has something due below it."""
    over = int(now.timestamp()) - span_s - SETTLED_S[span_s]
    rows = statements.fetch(
        connection,
        f"SELECT start, touches, first_id, last_id FROM {due.TABLE} "  # noqa: S608
        f"WHERE due AND span_s = {span_s:d} AND start <= {statements.time_of(connection, over)} "
        f"ORDER BY start LIMIT {MOST_MARKS:d}",
    )
    marks = [Mark(span_s, due.epoch_of(row[0]), row[1], (row[2], row[3])) for row in rows]
    below = _BELOW.get(span_s)
    if not marks or below is None:
        return marks
    waiting = statements.fetch(
        connection,
        f"SELECT start FROM {due.TABLE} WHERE due AND span_s = {below:d} "  # noqa: S608
        f"AND start < {statements.time_of(connection, marks[-1].start_s + span_s)}",
    )
    unready = {due.epoch_of(start) // span_s * span_s for (start,) in waiting}
    return [mark for mark in marks if mark.start_s not in unready]
