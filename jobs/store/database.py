"""The Store in the control database, for as many processes as use it.

Safe from any thread: each uses its own connection.  Taking in, claiming and writing are the
database's own (`postgresql/`, `sqlite/`); everything else is one room for both.  A database that
falls silent is waited for no longer than `ANSWER_S`.  Errors come out as `django.db.Error`; a
connection that broke is given up, so that the next call makes another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID

from django.db import DataError, Error, IntegrityError, connection, transaction

from control.databases.deadline import answered_within
from control.outbox.enqueue import enqueue
from jobs.states import QUEUED
from jobs.store import (
    changing,
    counting,
    forgetting,
    gates,
    groups,
    holding,
    limits,
    runners,
    waiting,
)
from jobs.store.models import Job
from jobs.store.postgresql import claiming as postgresql_claiming
from jobs.store.postgresql import submitting as postgresql_submitting
from jobs.store.postgresql import writing as postgresql_writing
from jobs.store.postgresql.session import CANCEL_WORD, CHANNEL, QUEUED_WORD
from jobs.store.protocol import Changed, Claimed, Draft, Repeated, Verb, Write
from jobs.store.sqlite import claiming as sqlite_claiming
from jobs.store.sqlite import session as sqlite_session
from jobs.store.sqlite import submitting as sqlite_submitting
from jobs.store.sqlite import writing as sqlite_writing
from jobs.store.story import database_now
from jobs.types import catalogue
from jobs.types.spec import TypeSpec

logger = logging.getLogger(__name__)

ANSWER_S = 15.0


def _configured() -> Mapping[int, TypeSpec]:
    return catalogue.current().types


class DatabaseStore:
    """`now` replaces the database's clock, in tests; `types` says which types have limits."""

    def __init__(
        self,
        *,
        now: Callable[[], datetime] | None = None,
        types: Callable[[], Mapping[int, TypeSpec]] = _configured,
    ) -> None:
        self._given = now
        self._types = types

    # --- how everything is asked -----------------------------------------------------------

    @staticmethod
    def _is_postgresql() -> bool:
        return connection.vendor == "postgresql"

    def _now(self) -> datetime:
        return database_now() if self._given is None else self._given()

    def _now_or_none(self) -> datetime | None:
        """For statements that read the database's clock themselves."""
        return None if self._given is None else self._given()

    def _now_here(self) -> datetime:
        return datetime.now(UTC) if self._given is None else self._given()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            with answered_within(ANSWER_S):
                yield
        except Error:
            if not connection.in_atomic_block:
                connection.close_if_unusable_or_obsolete()
            raise

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One transaction."""
        with self._asking():
            turn: AbstractContextManager[None]
            turn = transaction.atomic() if self._is_postgresql() else sqlite_session.turn()
            with turn:
                yield

    def _wake(self, word: str) -> None:
        """Tell those who listen, when the transaction commits."""
        if self._is_postgresql():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, word])

    # --- taking in -------------------------------------------------------------------------

    def submit(self, drafts: Sequence[Draft]) -> list[Repeated | None]:
        if not drafts:
            return []
        with self._asking():
            if self._is_postgresql():
                return postgresql_submitting.submit(drafts, now=self._now_or_none())
            return sqlite_submitting.submit(drafts, now=self._now_here())

    # --- running ---------------------------------------------------------------------------

    def join(self, runner: str, *, host: str, pid: int, process: str = "") -> None:
        with self._turn():
            runners.join(runner, host=host, pid=pid, process=process, now=self._now())

    def beat(self, runner: str, figures: Mapping[str, Any]) -> bool:
        with self._asking():
            return runners.beat(runner, figures, self._now())

    def runners(self) -> dict[str, int]:
        with self._asking():
            return runners.runners()

    def leave(self, runner: str) -> int:
        with self._turn():
            given = runners.leave(runner, self._now())
            if given:
                self._wake(QUEUED_WORD)
            return given

    def give_back(self, runner: str, *, keep: Collection[UUID]) -> int:
        with self._turn():
            return runners.give_back(runner, keep, self._now())

    def rescue(self, runner: str, *, beats: int, lost_at: Mapping[int, int]) -> int | None:
        with self._turn():
            rescued = runners.rescue(runner, beats=beats, lost_at=lost_at, now=self._now())
            if rescued:
                self._wake(QUEUED_WORD)
            return rescued

    def promote(self, limit: int = 1000) -> int:
        with self._asking():
            if not waiting.is_due(self._now()):
                return 0
        with self._turn():
            promoted = waiting.promote(limit, self._now())
            if promoted:
                self._wake(QUEUED_WORD)
            return promoted

    def overdue(self, limit: int = 1000) -> int:
        with self._asking():
            late = waiting.late(limit, self._now())
        if not late:
            return 0
        with self._turn():
            return waiting.overdue(late, self._now())

    def pull_back(self, by_s: float) -> int:
        with self._turn():
            return waiting.pull_back(by_s, self._now())

    def claim(
        self, runner: str, workers: str, limit: int, *, types: Collection[int]
    ) -> list[Claimed]:
        if limit <= 0 or not types:
            return []
        rules = self._types()
        rooms = dict.fromkeys(types, limit)
        limited = {
            one: rules[one] for one in rooms if one in rules and gates.is_limited(rules[one])
        }
        with self._asking():
            waits = limits.waiting(limited)
            for one in limited:
                del rooms[one]
            if not waits:
                return self._claim(runner, workers, limit, rooms) if rooms else []
        limited = {one: limited[one] for one in waits}
        with self._turn():
            rooms |= limits.rooms(limited, limit, self._now())
            claimed = self._claim(runner, workers, limit, rooms)
            limits.take(limited, claimed)
            return claimed

    def _claim(
        self, runner: str, workers: str, limit: int, rooms: Mapping[int, int]
    ) -> list[Claimed]:
        if self._is_postgresql():
            now = self._now_or_none()
            return postgresql_claiming.claim(runner, workers, limit, rooms, now=now)
        return sqlite_claiming.claim(runner, workers, limit, rooms, now=self._now_here())

    def write(self, writes: Sequence[Write]) -> list[bool]:
        rows = groups.rows_of(writes)
        try:
            became = self._write(rows)
        except (DataError, IntegrityError) as error:
            if connection.in_atomic_block:
                raise
            logger.warning(
                "a group of jobs' writes was refused; they are written one by one",
                extra={"writes": len(rows), "error": str(error)},
            )
            became = self._write_each(rows)
        written = [False] * len(writes)
        for index in became:
            for member in rows[index].members:
                written[member] = True
        return written

    def _write_each(self, rows: list[groups.WriteRow]) -> dict[int, str]:
        became: dict[int, str] = {}
        for index, row in enumerate(rows):
            try:
                found = self._write([row])
            except (DataError, IntegrityError) as error:
                rows[index] = groups.refused(row, str(error))
                found = self._write([rows[index]])
            if 0 in found:
                became[index] = found[0]
        return became

    def _write(self, rows: Sequence[groups.WriteRow]) -> dict[int, str]:
        if not rows:
            return {}
        holds = any(holding.is_hold(row) for row in rows)
        if not holds and not any(row.webhook is not None for row in rows):
            with self._asking():
                return self._write_rows(rows)
        with self._turn():
            gone = holding.folded(rows) if holds else {}
            became = self._write_rows(rows)
            holding.forget([one for index in gone if index in became for one in gone[index]])
            now = self._now()
            for index in became:
                webhook = rows[index].webhook
                if webhook is not None:
                    enqueue(**webhook, now=now)
            return became

    def _write_rows(self, rows: Sequence[groups.WriteRow]) -> dict[int, str]:
        if self._is_postgresql():
            return postgresql_writing.write(rows, now=self._now_or_none())
        return sqlite_writing.write(rows, now=self._now_here())

    def cancels(self, runner: str) -> list[tuple[UUID, int]]:
        held = Job.objects.filter(state="running", runner=runner, cancel_asked_at__isnull=False)
        with self._asking():
            return list(held.order_by().values_list("pk", "claim"))

    def has_queued(self) -> bool:
        with self._asking():
            return Job.objects.filter(state=QUEUED).order_by().exists()

    # --- words of operators and clients ----------------------------------------------------

    def change(
        self, verb: Verb, ids: Sequence[UUID], *, by: str, args: Mapping[str, Any] | None = None
    ) -> dict[UUID, Changed]:
        with self._turn():
            now = self._now()
            changed = changing.change(
                verb, ids, by=by, args=args or {}, types=self._types(), now=now
            )
            if any(one.asked for one in changed.values()):
                self._wake(CANCEL_WORD)
            if any(one.changed and one.state == QUEUED for one in changed.values()):
                self._wake(QUEUED_WORD)
            return changed

    # --- counting --------------------------------------------------------------------------

    def counts(self) -> dict[int, dict[str, int]]:
        with self._asking():
            return counting.counts()

    def fold(self) -> int:
        with self._turn():
            return counting.fold(self._now()) if counting.is_folder() else 0

    def forget(self, state: str, before: datetime, *, type_id: int | None, limit: int) -> int:
        with self._turn():
            return forgetting.forget(state, before, type_id=type_id, limit=limit, now=self._now())


@cache
def store() -> DatabaseStore:
    """The process's one."""
    return DatabaseStore()
