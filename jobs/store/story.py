"""Changes of many jobs that no runner hands in: the rows, their events and tallies together.

Called inside a transaction that holds the jobs' rows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import QuerySet

from jobs.states import STEP_RETRYING, STEP_RUNNING, STEP_SUCCEEDED
from jobs.store.models import Job, JobEvent, JobStep, JobTally

CHUNK = 500
GONE = ""  # the state, in tallies, of jobs that are no more


def database_now() -> datetime:
    """The database's clock; SQLite's is this machine's, as is every process that uses it."""
    if connection.vendor != "postgresql":
        return datetime.now(UTC)
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now: datetime = cursor.fetchone()[0]
    return now


def chunks(ids: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))


def locked(jobs: QuerySet[Job], *, skip: bool = False) -> QuerySet[Job]:
    """The jobs, held until the transaction ends; always in the order of their ids."""
    return jobs.defer("payload", "result").select_for_update(skip_locked=skip).order_by("pk")


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """`job` as it was; what it becomes, and what the event says."""

    job: Job
    state: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    attempt: int | None = None  # said by somebody outside, of this attempt: by no worker


def tell(moves: Sequence[Move], now: datetime) -> None:
    """Change the rows, add the events and the tallies."""
    groups: defaultdict[tuple[Any, ...], list[UUID]] = defaultdict(list)
    tallies: Counter[tuple[int, str]] = Counter()
    left: Counter[tuple[int, str]] = Counter()
    events = []
    for move in moves:
        job, values, outside = move.job, dict(move.fields), move.attempt
        groups[(move.state, *sorted(values.items(), key=lambda one: one[0]))].append(job.pk)
        if move.state != job.state:
            left[job.type_id, job.state] += 1
            tallies[job.type_id, move.state] += 1
        events.append(
            JobEvent(
                job_id=job.pk,
                at=now,
                state=move.state,
                claim=job.claim,
                attempt=values.get("attempts", job.attempts) if outside is None else outside,
                worker=job.worker if outside is None else "",
                text=move.text,
            )
        )
    for (state, *fields), ids in groups.items():
        for chunk in chunks(ids):
            Job.objects.filter(pk__in=chunk).update(state=state, **dict(fields))
    JobEvent.objects.bulk_create(events, batch_size=CHUNK)
    tally(tallies, left, now)


def tally(
    entered: Mapping[tuple[int, str], int], left: Mapping[tuple[int, str], int], now: datetime
) -> None:
    rows = [
        JobTally(
            type_id=type_id,
            state=state,
            at=now,
            entered=entered.get((type_id, state), 0),
            left=left.get((type_id, state), 0),
        )
        for type_id, state in {**entered, **left}
    ]
    JobTally.objects.bulk_create(rows)


def steps_interrupted(ids: Sequence[UUID]) -> None:
    """Steps that were in flight when their job left its runner are called again."""
    for chunk in chunks(ids):
        running = JobStep.objects.filter(job_id__in=chunk, state=STEP_RUNNING)
        running.update(state=STEP_RETRYING)


def steps_anew(ids: Sequence[UUID]) -> None:
    """All steps but those that succeeded are called again."""
    for chunk in chunks(ids):
        steps = JobStep.objects.filter(job_id__in=chunk).exclude(state=STEP_SUCCEEDED)
        steps.update(state=STEP_RETRYING)
