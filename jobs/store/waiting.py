"""Jobs whose time has not come, and the clock that says when it has."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import OuterRef, Subquery

from jobs.states import DEAD, DEADLINE, QUEUED, SCHEDULED
from jobs.store.models import Job, JobEvent
from jobs.store.story import Move, chunks, locked, tell
from jobs.store.texts import OVERDUE, PULLED_BACK, TIME_CAME


def is_due(now: datetime) -> bool:
    return Job.objects.filter(state=SCHEDULED, run_at__lte=now).exists()


def promote(limit: int, now: datetime) -> int:
    """Of several who promote at once, each takes what the others have not."""
    due = Job.objects.filter(state=SCHEDULED, run_at__lte=now)
    ids = list(due.order_by("run_at").values_list("pk", flat=True)[:limit])
    jobs = list(locked(due.filter(pk__in=ids), skip=True)) if ids else []
    tell([Move(job=job, state=QUEUED, text=TIME_CAME) for job in jobs], now)
    return len(jobs)


def late(limit: int, now: datetime) -> list[UUID]:
    """Waiting jobs whose deadline is over.  No index leads to them: not for every few moments."""
    waiting = Job.objects.filter(state__in=(QUEUED, SCHEDULED), deadline_at__lte=now).order_by()
    return list(waiting.values_list("pk", flat=True)[:limit])


def overdue(ids: list[UUID], now: datetime) -> int:
    """Those of them that wait still; what is claimed at this moment is its runner's."""
    waiting = Job.objects.filter(state__in=(QUEUED, SCHEDULED), deadline_at__lte=now)
    fields = {"reason": DEADLINE, "finished_at": now, "error": OVERDUE}
    moves = [
        Move(job=job, state=DEAD, text=OVERDUE, fields=fields)
        for chunk in chunks(sorted(ids))
        for job in locked(waiting.filter(pk__in=chunk), skip=True)
    ]
    tell(moves, now)
    return len(moves)


def pull_back(by_s: float, now: datetime) -> int:
    """Waits that began at a time which has not come yet were reckoned by the old clock."""
    said = JobEvent.objects.filter(job=OuterRef("pk")).order_by("-id").values("at")[:1]
    backoffs = Job.objects.filter(state=SCHEDULED, run_at__gt=now, claim__gt=0)
    ahead = backoffs.alias(said_at=Subquery(said)).filter(said_at__gt=now)
    jobs = list(locked(Job.objects.filter(pk__in=ahead.values("pk"), state=SCHEDULED)))
    by = timedelta(seconds=by_s)
    moves = [
        Move(
            job=job,
            state=SCHEDULED,
            text=PULLED_BACK,
            fields={"run_at": max(now, job.run_at - by)},
        )
        for job in jobs
    ]
    tell(moves, now)
    return len(moves)
