"""Submits the jobs of schedules whose time has come: each time once, however many processes look.

Whoever moves `next_at` on under its old value has the time, and submits the job in the same
transaction; the others find it moved.  A `next_at` that is not what the expression says (it was
edited, or the clock was set back) is put right.  A time that was submitted does not come again
when the clock is set back a little; when it was set back by more than `BACK`, the clock was wrong
before, and the schedule goes by what it says now.

Runs on the thread of `jobs.upkeep`; one object a process, used by one thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import DataError, IntegrityError, connection, transaction

from jobs import metrics
from jobs.ids import new_job_id
from jobs.schedules.cron import ScheduleError, next_time
from jobs.schedules.problems import payload_problem
from jobs.states import OPEN
from jobs.store.models import Job
from jobs.store.protocol import Draft, Store
from jobs.store.sqlite import session as sqlite_session
from jobs.tracing import submitted_span
from jobs.types import catalogue
from jobs.types.models import JobSchedule
from jobs.types.spec import TypeSpec

logger = logging.getLogger(__name__)

EVERY_S = 1.0
SKIP = "skip"
# What comes later than this was missed: nobody was there to submit it.
MISSED_AFTER = timedelta(seconds=60)
# As cron has it: a clock set back by less does not make times come twice.
BACK = timedelta(hours=3)
MAX_ERROR_CHARS = 500

Validate = Callable[[TypeSpec, Any], str]


def by_schema(spec: TypeSpec, payload: Any) -> str:
    return payload_problem(spec.id, spec.payload_schema, payload)


def in_turn() -> AbstractContextManager[None]:
    """A transaction; on SQLite in this process's turn to write."""
    return sqlite_session.turn() if connection.vendor == "sqlite" else transaction.atomic()


@dataclass(frozen=True, slots=True)
class _Told:
    """What this process reckoned: from `since` on, before `at`, the next time is `at`."""

    since: datetime
    at: datetime | None


class Firing:
    """`validate` says what is wrong with a payload, "" where nothing is."""

    def __init__(
        self,
        *,
        store: Store,
        now: Callable[[], datetime],
        validate: Validate = by_schema,
    ) -> None:
        self._store = store
        self._now = now
        self._validate = validate
        self._told: dict[tuple[str, str], _Told] = {}
        self._said: dict[int, str] = {}
        self._soonest: datetime | None = None

    def run(self) -> float | None:
        """Submit what is due; returns in how many seconds something will be, where that is soon.

        Raises `django.db.Error`.
        """
        self.beat()
        if self._soonest is None:
            return None
        return min(EVERY_S, max(0.0, (self._soonest - self._now()).total_seconds()))

    def beat(self) -> int:
        """Submit what is due; returns how many jobs.  Raises `django.db.Error`."""
        rows = []
        for row in JobSchedule.objects.order_by("pk"):
            if row.enabled:
                rows.append(row)
            elif row.next_at is not None:
                # What comes while it is disabled was not missed.
                JobSchedule.objects.filter(pk=row.pk, enabled=False).update(next_at=None)
        now = self._now()
        self._forget(rows)
        self._soonest = None
        return sum(self._look_at(row, now) for row in rows)

    def _look_at(self, row: JobSchedule, now: datetime) -> int:
        try:
            due = row.next_at
            if due is not None and due <= now and self._is_a_time(row, due):
                return self._fire(row, due, now)
            wanted = self._next(row, now)
        except ScheduleError as error:
            self._fault(row, str(error))
            return 0
        if row.next_at != wanted:
            self._move(row, next_at=wanted, last_error="")
        self._await(wanted)
        return 0

    def _await(self, at: datetime | None) -> None:
        if at is not None and (self._soonest is None or at < self._soonest):
            self._soonest = at

    # --- reckoning -------------------------------------------------------------------------

    def _next(self, row: JobSchedule, now: datetime) -> datetime | None:
        """The next time of the schedule that was not submitted.  Raises ScheduleError."""
        after = now
        if row.last_at is not None and now < row.last_at <= now + BACK:
            after = row.last_at
        return self._after(row, after)

    def _after(self, row: JobSchedule, at: datetime) -> datetime | None:
        key = (row.cron, row.timezone)
        told = self._told.get(key)
        if told is None or not (told.since <= at and (told.at is None or at < told.at)):
            told = self._told[key] = _Told(at, next_time(row.cron, row.timezone, at))
        return told.at

    @staticmethod
    def _is_a_time(row: JobSchedule, at: datetime) -> bool:
        return next_time(row.cron, row.timezone, at - timedelta(seconds=1)) == at

    # --- doing -----------------------------------------------------------------------------

    def _fire(self, row: JobSchedule, due: datetime, now: datetime) -> int:
        following = self._after(row, now)
        self._await(following)
        if now - due > MISSED_AFTER and row.missed == SKIP:
            if self._move(row, next_at=following):
                self._count(row, "missed", due)
            return 0
        if not row.overlap and self._last_is_open(row):
            if self._move(row, next_at=following):
                self._count(row, "overlap", due)
            return 0
        draft, error = self.draft(row, due)
        if draft is None:
            if self._move(row, next_at=following, last_error=error):
                self._fault(row, error)
                self._count(row, "failed", due)
            return 0
        try:
            with in_turn():
                moved = self._row(row).update(
                    next_at=following, last_at=due, last_job=draft.id, last_error=""
                )
                if not moved:
                    return 0
                self._store.submit([draft])
        except (DataError, IntegrityError, ValueError, TypeError) as problem:
            # Nothing of a time to come would mend it, and the others shall not wait for it.
            error = f"the job could not be stored: {problem}"
            if self._move(row, next_at=following, last_error=error[:MAX_ERROR_CHARS]):
                self._fault(row, error)
                self._count(row, "failed", due)
            return 0
        self._said.pop(row.pk, None)
        self._count(row, "submitted", due)
        return 1

    def draft(self, row: JobSchedule, due: datetime) -> tuple[Draft | None, str]:
        """The job, or why there is none."""
        spec = catalogue.current().types.get(row.type_id)
        if spec is None:
            catalogue.refresh()
            spec = catalogue.current().types.get(row.type_id)
        if spec is None:
            return None, "its job type cannot be used; see the type"
        if not spec.enabled:
            return None, f"its job type {spec.name} is disabled"
        wrong = self._validate(spec, row.payload)
        if wrong:
            return None, f"its payload does not fit the type {spec.name}: {wrong}"
        job_id = new_job_id()
        return Draft(
            id=job_id,
            type_id=row.type_id,
            payload=row.payload,
            tenant=row.tenant,
            priority=spec.default_priority if row.priority is None else row.priority,
            deadline_s=spec.deadline_s,
            correlation_id=f"{row.name}:{due.astimezone(UTC):%Y-%m-%dT%H:%MZ}",
            service=row.service,
            submitted_by=f"schedule {row.name}",
            traceparent=submitted_span(job_id, spec.name),
            schedule=row.name,
        ), ""

    @staticmethod
    def _last_is_open(row: JobSchedule) -> bool:
        return (
            row.last_job is not None
            and Job.objects.filter(pk=row.last_job, state__in=OPEN).exists()
        )

    def _move(self, row: JobSchedule, **fields: Any) -> bool:
        """Write this where nobody else did; True when it was this process."""
        with in_turn():
            return bool(self._row(row).update(**fields))

    @staticmethod
    def _row(row: JobSchedule) -> Any:
        """The row as it was read; none when it was moved or edited since."""
        return JobSchedule.objects.filter(
            pk=row.pk,
            enabled=True,
            next_at=row.next_at,
            cron=row.cron,
            timezone=row.timezone,
        )

    # --- telling ---------------------------------------------------------------------------

    def _fault(self, row: JobSchedule, error: str) -> None:
        words = error[:MAX_ERROR_CHARS]
        if row.last_error != words:
            JobSchedule.objects.filter(pk=row.pk).update(last_error=words)
        if self._said.get(row.pk) != words:
            self._said[row.pk] = words
            logger.error("a schedule does not work", extra={"schedule": row.name, "error": words})

    def _count(self, row: JobSchedule, outcome: str, due: datetime) -> None:
        metrics.count_schedule(outcome)
        logger.info(
            "a schedule's time came",
            extra={"schedule": row.name, "due": due.isoformat(), "outcome": outcome},
        )

    def _forget(self, rows: list[JobSchedule]) -> None:
        """Keep nothing of schedules that are gone or disabled."""
        expressions = {(row.cron, row.timezone) for row in rows}
        for key in self._told.keys() - expressions:
            del self._told[key]
        for pk in self._said.keys() - {row.pk for row in rows}:
            del self._said[pk]
