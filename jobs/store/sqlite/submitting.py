"""Taking jobs in: the jobs, their first events, the tallies and the keys, in one transaction."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import uuid4

from control.idempotency.models import DONE
from jobs.states import QUEUED, SCHEDULED
from jobs.store.protocol import Draft, Repeated
from jobs.store.sqlite.session import stamp, writing
from jobs.store.values import json_text

PATH = "/jobs"

_JOB = """
INSERT INTO jobs_job (id, tenant, state, reason, priority, payload, correlation_id, service,
    submitted_by, request_id, traceparent, webhook_url, schedule, attempts, claim, retries,
    created_at, run_at, deadline_at, runner, worker, error, type_id)
VALUES (?, ?, ?, '', ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, ?, ?, ?, '', '', '', ?)
ON CONFLICT (id) DO NOTHING
"""
_EVENT = """
INSERT INTO jobs_jobevent (job_id, at, state, claim, attempt, worker, text)
VALUES (?, ?, ?, 0, 0, '', '')
"""
_TALLY = """
INSERT INTO jobs_jobtally (type_id, state, at, entered, "left", seconds) VALUES (?, ?, ?, ?, 0, 0)
"""
_FIRST = """
SELECT digest, status, response FROM control_idempotencykey
WHERE tenant = ? AND path = ? AND key = ? AND expires_at > ?
"""
_KEY = """
INSERT OR REPLACE INTO control_idempotencykey (id, tenant, path, key, digest, state, log_id, parts,
    kept, status, response, claimed_at, expires_at)
VALUES (?, ?, ?, ?, ?, ?, '', '[]', '[]', ?, ?, ?, ?)
"""


def submit(drafts: Sequence[Draft], *, now: datetime) -> list[Repeated | None]:
    payloads = [json_text(draft.payload, what="the payload") for draft in drafts]
    answers: list[Repeated | None] = []
    tallies: Counter[tuple[int, str]] = Counter()
    at = stamp(now)
    with writing() as driver:
        for draft, payload in zip(drafts, payloads, strict=True):
            first = _first(driver, draft, now)
            answers.append(first)
            if first is None:
                state = _keep(driver, draft, payload, now)
                if state:
                    tallies[draft.type_id, state] += 1
        driver.executemany(
            _TALLY, [(type_id, state, at, jobs) for (type_id, state), jobs in tallies.items()]
        )
    return answers


def _first(driver: sqlite3.Connection, draft: Draft, now: datetime) -> Repeated | None:
    """What was answered to the key before; else the key is this draft's from now on."""
    key = draft.keyed
    if key is None:
        return None
    place = draft.tenant, PATH, key.key
    row = driver.execute(_FIRST, (*place, stamp(now))).fetchone()
    if row is not None:
        return Repeated(digest=row[0], status=row[1], response=row[2])
    until = now + timedelta(seconds=key.keep_s)
    kept = (uuid4().hex, *place, key.digest, DONE, key.status, key.response)
    driver.execute(_KEY, (*kept, stamp(now), stamp(until)))
    return None


def _keep(driver: sqlite3.Connection, draft: Draft, payload: str, now: datetime) -> str:
    """The state that the job is in; "" when it was here before."""
    run_at = max(draft.run_at or now, now)
    deadline_at = draft.deadline_at
    if deadline_at is None and draft.deadline_s is not None:
        deadline_at = run_at + timedelta(seconds=draft.deadline_s)
    state = SCHEDULED if run_at > now else QUEUED
    made = driver.execute(
        _JOB,
        (
            draft.id.hex,
            draft.tenant,
            state,
            draft.priority,
            payload,
            draft.correlation_id,
            draft.service,
            draft.submitted_by,
            draft.request_id,
            draft.traceparent,
            draft.webhook_url,
            draft.schedule,
            stamp(now),
            stamp(run_at),
            stamp(deadline_at),
            draft.type_id,
        ),
    )
    if not made.rowcount:
        return ""
    driver.execute(_EVENT, (draft.id.hex, stamp(now), state))
    return state
