"""Claiming jobs, by priority, then age.  Whoever has the turn to write is alone.

Each type is looked at by itself, so that one whose jobs may not be claimed now costs the others
nothing, however many wait.
"""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

from jobs.store.protocol import Claimed, StepRecord
from jobs.store.sqlite.session import moment, reading, stamp, writing

_ANY = "SELECT 1 FROM jobs_job WHERE state = 'queued' AND type_id = ? LIMIT 1"
_KNOWN = "SELECT 1 FROM jobs_runner WHERE id = ?"
_HEAD = """
SELECT id, type_id, claim + 1, attempts, payload, tenant, priority, correlation_id, service,
    traceparent, webhook_url, created_at, deadline_at, run_at
FROM jobs_job WHERE state = 'queued' AND type_id = ? ORDER BY priority DESC, id LIMIT ?
"""
_TAKE = """
UPDATE jobs_job SET state = 'running', claim = ?, runner = ?, worker = ?, started_at = ?
WHERE id = ?
"""
_EVENT = """
INSERT INTO jobs_jobevent (job_id, at, state, claim, attempt, worker, text)
VALUES (?, ?, 'running', ?, ?, ?, '')
"""
_TALLY = """
INSERT INTO jobs_jobtally (type_id, state, at, entered, "left", seconds) VALUES (?, ?, ?, ?, ?, 0)
"""
_STEPS = """
SELECT name, stage, state, attempts, started_at, finished_at, duration_ms, status_code, result,
    error
FROM jobs_jobstep WHERE job_id = ? ORDER BY stage, id
"""


def claim(
    runner: str, workers: str, limit: int, rooms: Mapping[int, int], *, now: datetime
) -> list[Claimed]:
    """`rooms` says how many of each type may be taken."""
    with reading() as driver:
        # Looking costs nobody's turn.
        if not any(room and driver.execute(_ANY, (t,)).fetchone() for t, room in rooms.items()):
            return []
    with writing() as driver:
        if driver.execute(_KNOWN, (runner,)).fetchone() is None:
            return []
        heads = [driver.execute(_HEAD, one).fetchall() for one in rooms.items()]
        rows = list(islice(heapq.merge(*heads, key=lambda row: (-row[6], row[0])), limit))
        if not rows:
            return []
        _take(driver, rows, runner, workers, now)
        return [_claimed(driver, row, now) for row in rows]


def _take(
    driver: sqlite3.Connection,
    rows: Sequence[tuple[Any, ...]],
    runner: str,
    workers: str,
    now: datetime,
) -> None:
    at = stamp(now)
    driver.executemany(_TAKE, [(row[2], runner, workers, at, row[0]) for row in rows])
    driver.executemany(_EVENT, [(row[0], at, row[2], row[3] + 1, workers) for row in rows])
    tallies: list[tuple[Any, ...]] = []
    for type_id, jobs in Counter(row[1] for row in rows).items():
        tallies += [(type_id, "queued", at, 0, jobs), (type_id, "running", at, jobs, 0)]
    driver.executemany(_TALLY, tallies)


def _claimed(driver: sqlite3.Connection, row: tuple[Any, ...], now: datetime) -> Claimed:
    deadline_at, run_at = row[12], moment(row[13])
    return Claimed(
        id=UUID(row[0]),
        type_id=row[1],
        claim=row[2],
        attempts=row[3],
        payload=json.loads(row[4]),
        tenant=row[5],
        priority=row[6],
        correlation_id=row[7],
        service=row[8],
        traceparent=row[9],
        webhook_url=row[10],
        created_at=moment(row[11]),
        deadline_in_s=None if deadline_at is None else (moment(deadline_at) - now).total_seconds(),
        waited_s=max(0.0, (now - run_at).total_seconds()),
        steps=_steps(driver, row[0]) if row[2] > 1 else {},
    )


def _steps(driver: sqlite3.Connection, job_id: str) -> dict[str, StepRecord]:
    return {
        row[0]: StepRecord(
            name=row[0],
            stage=row[1],
            state=row[2],
            attempts=row[3],
            started_at=None if row[4] is None else moment(row[4]),
            finished_at=None if row[5] is None else moment(row[5]),
            duration_ms=row[6],
            status_code=row[7],
            result=None if row[8] is None else json.loads(row[8]),
            error=row[9],
        )
        for row in driver.execute(_STEPS, (job_id,))
    }
