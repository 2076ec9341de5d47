"""Webhooks of jobs that ended in nobody's hands: cancelled while they waited, lost with runners.

What a runner ends is told in the very transaction that ends it.  The rest is looked for here, on
the outbox's thread, every few seconds: jobs that are dead or cancelled since the last look, and not
told of.  A look reaches back over the last one, as a transaction is seen only when it is over; the
message's key keeps it one message, whoever else looks.  Called by one thread of a process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

from django.db.models import Q

from control.outbox.enqueue import enqueue
from control.outbox.models import OutboxMessage
from jobs.states import CANCELLED, DEAD
from jobs.store.models import Job
from jobs.store.story import database_now
from jobs.types.models import JobType
from jobs.webhooks.composing import dedupe_key, message

EVERY_S = 5.0
OVERLAP = timedelta(seconds=20)
# The first look of a process: what ended while none looked.
FIRST = timedelta(minutes=10)
PAGE, PAGES = 500, 10

Place: TypeAlias = tuple[datetime, UUID]


class Unheard:
    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        database_now: Callable[[], datetime] = database_now,
    ) -> None:
        self._monotonic = monotonic
        self._database_now = database_now
        self._looked_at: float | None = None
        self._seen_until: datetime | None = None
        # Where a look stopped that had more to do than one call may.
        self._stopped: tuple[Place, datetime] | None = None

    def __call__(self, now: datetime) -> int:
        """Look, if it is time; how many messages were made."""
        moment = self._monotonic()
        if self._stopped is None:
            if self._looked_at is not None and moment - self._looked_at < EVERY_S:
                return 0
            until = self._database_now()
            since = until - FIRST if self._seen_until is None else self._seen_until - OVERLAP
            place: Place = (since, UUID(int=0))
        else:
            place, until = self._stopped
        made = 0
        for _ in range(PAGES):
            found = self._ended(place)
            made += self._tell(found, now)
            if len(found) < PAGE:
                self._stopped, self._seen_until, self._looked_at = None, until, moment
                return made
            place = (found[-1].finished_at or until, found[-1].id)
        self._stopped = (place, until)
        return made

    @staticmethod
    def _ended(place: Place) -> list[Job]:
        since, last = place
        telling = JobType.objects.exclude(webhook_url="").values_list("pk", flat=True)
        told = ~Q(webhook_url="") | Q(type_id__in=list(telling))
        behind = Q(finished_at__gt=since) | Q(pk__gt=last)
        rows = Job.objects.filter(told, behind, finished_at__gte=since, state__in=(DEAD, CANCELLED))
        return list(rows.defer("payload").order_by("finished_at", "pk")[:PAGE])

    @staticmethod
    def _tell(jobs: list[Job], now: datetime) -> int:
        keys = {dedupe_key(job.id, job.claim, job.state): job for job in jobs}
        known = OutboxMessage.objects.filter(dedupe_key__in=list(keys))
        for key in known.values_list("dedupe_key", flat=True):
            del keys[key]
        if not keys:
            return 0
        names = dict(JobType.objects.values_list("pk", "name"))
        return sum(
            enqueue(**of_row(job, names[job.type_id]), now=now)
            for job in keys.values()
            if job.type_id in names
        )


def of_row(job: Job, type_name: str) -> dict[str, Any]:
    return message(
        id=job.id,
        claim=job.claim,
        type_id=job.type_id,
        type_name=type_name,
        own_url=job.webhook_url,
        state=job.state,
        job={
            "reason": job.reason,
            "tenant": job.tenant,
            "correlation_id": job.correlation_id,
            "service": job.service,
            "attempts": job.attempts,
            "error": job.error,
            "result": None,
            "result_omitted": job.result is not None,
        },
        started_at=job.started_at,
        finished_at=job.finished_at,
    )
