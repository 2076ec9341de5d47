"""How many jobs there are of what: tallies folded into counts and minutes, and read together.

One process folds at a time.  Tallies are deleted by their ids: a number below the highest may still
be uncommitted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from jobs.states import CANCELLED, DEAD, QUEUED, RUNNING, SCHEDULED, SUCCEEDED
from jobs.store.models import JobCount, JobMinute, JobTally
from jobs.store.story import GONE, chunks

MOST = 5_000
_FOLDER = 0x6A6F6273  # of the advisory lock
_DEPTHS = (QUEUED, SCHEDULED, RUNNING)
_OUTCOMES = (SUCCEEDED, DEAD, CANCELLED)
_COUNTS = """
SELECT type_id, state, sum(jobs) FROM (
    SELECT type_id, state, jobs FROM jobs_jobcount
    UNION ALL
    SELECT type_id, state, entered - "left" FROM jobs_jobtally WHERE state <> ''
) counted GROUP BY type_id, state
"""


def counts() -> dict[int, dict[str, int]]:
    """One statement, so that a fold in between is seen whole or not at all."""
    found: dict[int, dict[str, int]] = {}
    with connection.cursor() as cursor:
        cursor.execute(_COUNTS)
        for type_id, state, jobs in cursor.fetchall():
            if jobs:
                found.setdefault(type_id, {})[state] = int(jobs)
    return found


def is_folder() -> bool:
    """Whether this transaction is the one that folds now."""
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_FOLDER])
        return bool(cursor.fetchone()[0])


class _Fold:
    """The counts as they were, with tallies added minute by minute."""

    def __init__(self) -> None:
        self.rows = {(row.type_id, row.state): row for row in JobCount.objects.all()}
        self.jobs = Counter({key: row.jobs for key, row in self.rows.items()})
        self.minutes: dict[tuple[int, datetime], dict[str, Any]] = {}

    def add(self, tallies: list[JobTally], now: datetime) -> None:
        by_minute: defaultdict[datetime, list[JobTally]] = defaultdict(list)
        for tally in tallies:
            by_minute[_minute(tally.at)].append(tally)
        for at in sorted(by_minute):
            for tally in by_minute[at]:
                self._count(tally, at)
            self._depths(at, {tally.type_id for tally in by_minute[at]})
        # Types that nothing happened to have a depth all the same.
        self._depths(
            _minute(now),
            {type_id for (type_id, state), n in self.jobs.items() if n and state in _DEPTHS},
        )

    def _count(self, tally: JobTally, at: datetime) -> None:
        minute = self.minutes.setdefault((tally.type_id, at), _empty())
        if tally.state != GONE:
            self.jobs[tally.type_id, tally.state] += tally.entered - tally.left
        # What entered and left balances but for the jobs that came.
        minute["submitted"] += tally.entered - tally.left
        if tally.state == RUNNING:
            minute["started"] += tally.entered
        if tally.state in _OUTCOMES:
            minute[tally.state] += tally.entered
        minute["seconds"] += tally.seconds

    def _depths(self, at: datetime, types: set[int]) -> None:
        for type_id in types:
            minute = self.minutes.setdefault((type_id, at), _empty())
            for state in _DEPTHS:
                minute[state] = self.jobs[type_id, state]

    def put(self) -> None:
        for key, jobs in self.jobs.items():
            row = self.rows.get(key)
            if row is None:
                JobCount.objects.create(type_id=key[0], state=key[1], jobs=jobs)
            elif row.jobs != jobs:
                JobCount.objects.filter(pk=row.pk).update(jobs=jobs)
        for (type_id, at), figures in self.minutes.items():
            _put_minute(type_id, at, figures)


def _put_minute(type_id: int, at: datetime, figures: dict[str, Any]) -> None:
    row = JobMinute.objects.filter(type_id=type_id, at=at).first()
    if row is None:
        JobMinute.objects.create(type_id=type_id, at=at, **figures)
        return
    values = {
        name: value if name in _DEPTHS else getattr(row, name) + value
        for name, value in figures.items()
    }
    if any(getattr(row, name) != value for name, value in values.items()):
        JobMinute.objects.filter(pk=row.pk).update(**values)


def _empty() -> dict[str, Any]:
    counters = ("submitted", "started", *_OUTCOMES, *_DEPTHS)
    return {**dict.fromkeys(counters, 0), "seconds": 0.0}


def _minute(at: datetime) -> datetime:
    return at - timedelta(seconds=at.second, microseconds=at.microsecond)


def fold(now: datetime) -> int:
    """Inside a transaction that is the folder's."""
    tallies = list(JobTally.objects.order_by("id")[:MOST])
    folding = _Fold()
    folding.add(tallies, now)
    folding.put()
    for chunk in chunks([tally.pk for tally in tallies]):
        JobTally.objects.filter(pk__in=chunk).delete()
    return len(tallies)
