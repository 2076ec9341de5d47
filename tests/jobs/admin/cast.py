"""The cast of the tests of jobs' admin: types, jobs in each state with their story, runners.

Jobs take the way of all jobs, through the Store, so that counts and events are what they would be.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.utils import timezone

from jobs.models import DownstreamService, Job, JobMinute, JobType, Runner, TypeStep
from jobs.states import (
    ATTEMPTS,
    CANCELLED,
    DEAD,
    QUEUED,
    RUNNING,
    SCHEDULED,
    STEP_FAILED,
    STEP_RETRYING,
    STEP_SUCCEEDED,
    SUCCEEDED,
)
from jobs.store.database import store
from jobs.store.protocol import Again, Draft, Ended, StepRecord

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>"
RUNNER = "runner-of-the-cast"
_sequence = itertools.count()


def make_downstream(name: str = "", **fields: Any) -> DownstreamService:
    values = {"base_url": "http://127.0.0.1:9/api", **fields}
    return DownstreamService.objects.create(name=name or f"service-{next(_sequence)}", **values)


def make_type(
    name: str = "", *, steps: tuple[str, ...] = ("charge", "mail"), **fields: Any
) -> JobType:
    row = JobType.objects.create(name=name or f"type-{next(_sequence)}", **fields)
    if steps:
        service = make_downstream(f"of-{row.name}"[:63])
        for number, step in enumerate(steps, 1):
            TypeStep.objects.create(
                type=row, name=step, stage=number, downstream=service, path=f"/{step}"
            )
    return row


def make_job(row: JobType, state: str = QUEUED, *, error: str = "it failed", **fields: Any) -> Job:
    """A job of that state, with the events and steps that led there."""
    kept = store()
    run_at = timezone.now() + timedelta(hours=1) if state == SCHEDULED else None
    values: dict[str, Any] = {
        "payload": {"user_id": 456}, "correlation_id": f"job-{next(_sequence)}",
        "run_at": run_at, "deadline_s": 3600.0, **fields,
    }  # fmt: skip
    draft = Draft(type_id=row.pk, **values)
    kept.submit([draft])
    if state in (RUNNING, SUCCEEDED, DEAD):
        _run(draft.id, row, state, error)
    elif state == CANCELLED:
        kept.change("cancel", [draft.id], by="somebody")
    return Job.objects.get(pk=draft.id)


def make_held(row: JobType, said: str, *, step: str = "charge") -> Job:
    """A job whose step was not called, for what its service says: it waits to come back."""
    kept = store()
    draft = Draft(type_id=row.pk, payload={}, deadline_s=3600.0)
    kept.submit([draft])
    kept.join(RUNNER, host="host-a", pid=4711)
    claimed = {one.id: one for one in kept.claim(RUNNER, "host-a:4711", 1000, types=[row.pk])}
    mine = claimed.pop(draft.id)
    assert all(kept.write([Again(id=a.id, claim=a.claim, worker="w", spent=False)
                           for a in claimed.values()]))  # fmt: skip
    record = StepRecord(name=step, state=STEP_RETRYING, attempts=0, error=said)
    again = Again(
        id=draft.id, claim=mine.claim, worker="w", delay_s=60.0, spent=False,
        text=f"step {step}: {said}", steps=[record],
    )  # fmt: skip
    assert all(kept.write([again]))
    return Job.objects.get(pk=draft.id)


def _run(key: UUID, row: JobType, state: str, error: str) -> None:
    kept = store()
    kept.join(RUNNER, host="host-a", pid=4711)
    # Everything that waits before it is claimed as well, and given back.
    claimed = {one.id: one for one in kept.claim(RUNNER, "host-a:4711", 1000, types=[row.pk])}
    mine = claimed.pop(key)
    writes: list[Any] = [
        Again(id=one.id, claim=one.claim, worker="w", spent=False, text="given back")
        for one in claimed.values()
    ]
    now = datetime.now(UTC)
    if state != RUNNING:
        ended = StepRecord(
            name="charge", state=STEP_SUCCEEDED, attempts=1, started_at=now - timedelta(seconds=2),
            finished_at=now - timedelta(seconds=1), duration_ms=1_000.0, status_code=200,
            result={"charged": True},
        )  # fmt: skip
        failed = StepRecord(
            name="mail", stage=2, state=STEP_FAILED, attempts=3,
            started_at=now - timedelta(seconds=1), finished_at=now, duration_ms=1_000.0,
            status_code=503, error=error,
        )  # fmt: skip
        writes.append(
            Ended(
                id=key, claim=mine.claim, state=state, worker="host-a:4711 jobs-1",
                reason=ATTEMPTS if state == DEAD else "",
                error=error if state == DEAD else "",
                text="2 of 2 steps succeeded" if state == SUCCEEDED else error,
                result={"steps": {"charge": {"charged": True}}}, ran_s=2.0,
                steps=[ended, failed] if state == DEAD else [ended],
            )
        )  # fmt: skip
    assert all(kept.write(writes))


def living_runner(*, seen_ago_s: float = 0.0, **figures: Any) -> Runner:
    now = timezone.now()
    told = {"workers": 4, "busy": 2, "max_workers": 16, "waiting": 3, "succeeded": 10, **figures}
    row, _ = Runner.objects.update_or_create(
        pk=RUNNER,
        defaults={
            "host": "host-a", "pid": 4711, "started_at": now - timedelta(hours=1),
            "seen_at": now - timedelta(seconds=seen_ago_s), "beats": 1, "figures": told,
        },
    )  # fmt: skip
    return row


def told_of(name: str, breaker: str = "closed", **figures: Any) -> dict[str, Any]:
    """What a runner says of a downstream service."""
    return {
        "name": name, "breaker": breaker, "cause": "", "retry_in_s": 0.0, "in_flight": 0,
        "calls": 10, "failures": 0, "trips": 0, **figures,
    }  # fmt: skip


def make_minutes(row: JobType, count: int = 30, **fields: Any) -> None:
    now = timezone.now().replace(second=0, microsecond=0)
    JobMinute.objects.bulk_create(
        JobMinute(
            type=row,
            at=now - timedelta(minutes=back),
            **{"submitted": 9, "started": 9, "succeeded": 8, "dead": back % 3, "seconds": 4.5,
               "queued": back, "scheduled": 2, "running": 3, **fields},
        )
        for back in range(1, count + 1)
    )  # fmt: skip
