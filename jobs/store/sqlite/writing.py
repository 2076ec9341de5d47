"""What workers hand in: steps, ends and returns of many jobs, fenced by claim, in one turn."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from jobs.states import ASKED, CANCELLED, QUEUED, RUNNING, SCHEDULED
from jobs.store.groups import AGAIN, PROGRESS, WriteRow
from jobs.store.sqlite.session import stamp, writing

_CHUNK = 500
_HELD = """
SELECT id, claim, type_id, attempts, cancel_asked_at IS NOT NULL FROM jobs_job
WHERE state = 'running' AND id IN ({places})
"""
_END = """
UPDATE jobs_job SET state = ?, reason = ?, attempts = ?, finished_at = ?, runner = '', worker = ?,
    result = ?, error = ?
WHERE id = ?
"""
_RETURN = """
UPDATE jobs_job SET state = ?, reason = '', attempts = ?, run_at = ?, runner = '', worker = ?,
    error = CASE ?6 WHEN '' THEN error ELSE ?6 END
WHERE id = ?5
"""
_EVENT = """
INSERT INTO jobs_jobevent (job_id, at, state, claim, attempt, worker, text)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_TALLY = """
INSERT INTO jobs_jobtally (type_id, state, at, entered, "left", seconds) VALUES (?, ?, ?, ?, ?, ?)
"""
_STEP = """
INSERT INTO jobs_jobstep (job_id, name, stage, state, attempts, started_at, finished_at,
    duration_ms, status_code, result, error)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (job_id, name) DO UPDATE SET stage = excluded.stage, state = excluded.state,
    attempts = excluded.attempts, started_at = excluded.started_at,
    finished_at = excluded.finished_at, duration_ms = excluded.duration_ms,
    status_code = excluded.status_code, result = excluded.result, error = excluded.error
"""


def write(rows: Sequence[WriteRow], *, now: datetime) -> dict[int, str]:
    """The rows whose claim holds, by index, and what each job became: "" while it goes on."""
    became: dict[int, str] = {}
    with writing() as driver:
        held = _held(driver, rows)
        books = _Books(now)
        for index, row in enumerate(rows):
            job = held.get(row.id.hex)
            if job is not None and job[1] == row.claim:
                became[index] = books.enter(row, job)
        books.put(driver)
    return became


def _held(driver: sqlite3.Connection, rows: Sequence[WriteRow]) -> dict[str, tuple[Any, ...]]:
    ids = [row.id.hex for row in rows]
    held: dict[str, tuple[Any, ...]] = {}
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        statement = _HELD.format(places=",".join("?" * len(chunk)))
        held.update((job[0], job) for job in driver.execute(statement, chunk))
    return held


class _Books:
    """The rows of one transaction, gathered, so that each table is written at once."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._at = stamp(now)
        self._ends: list[tuple[Any, ...]] = []
        self._returns: list[tuple[Any, ...]] = []
        self._events: list[tuple[Any, ...]] = []
        self._steps: list[tuple[Any, ...]] = []
        self._entered: Counter[tuple[int, str]] = Counter()
        self._left: Counter[tuple[int, str]] = Counter()
        self._seconds: defaultdict[tuple[int, str], float] = defaultdict(float)

    def enter(self, row: WriteRow, job: tuple[Any, ...]) -> str:
        job_id, claim, type_id, attempts, asked = job
        self._steps.extend(_step(job_id, row))
        if row.state == PROGRESS:
            return ""
        attempts += row.spent
        state, reason = row.state, row.reason
        if row.state == AGAIN and asked:
            state, reason = CANCELLED, ASKED
        if row.state == AGAIN and not asked:
            state = SCHEDULED if row.delay_s > 0 else QUEUED
            due = stamp(self._now + timedelta(seconds=row.delay_s))
            self._returns.append((state, attempts, due, row.worker, job_id, row.error))
        else:
            end = (state, reason, attempts, self._at, row.worker, row.result, row.error, job_id)
            self._ends.append(end)
            self._seconds[type_id, state] += row.ran_s
        self._events.append((job_id, self._at, state, claim, attempts, row.worker, row.text))
        self._left[type_id, RUNNING] += 1
        self._entered[type_id, state] += 1
        return state

    def put(self, driver: sqlite3.Connection) -> None:
        driver.executemany(_END, self._ends)
        driver.executemany(_RETURN, self._returns)
        driver.executemany(_EVENT, self._events)
        driver.executemany(_STEP, self._steps)
        driver.executemany(_TALLY, list(self._tallies()))

    def _tallies(self) -> Iterator[tuple[Any, ...]]:
        for (type_id, state), jobs in self._left.items():
            yield type_id, state, self._at, 0, jobs, 0.0
        for (type_id, state), jobs in self._entered.items():
            yield type_id, state, self._at, jobs, 0, self._seconds[type_id, state]


def _step(job_id: str, row: WriteRow) -> Iterator[tuple[Any, ...]]:
    for step in row.steps:
        yield (
            job_id,
            step.name,
            step.stage,
            step.state,
            step.attempts,
            stamp(step.started_at),
            stamp(step.finished_at),
            step.duration_ms,
            step.status_code,
            step.result,
            step.error,
        )
