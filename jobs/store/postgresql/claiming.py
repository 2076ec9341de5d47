"""Claiming jobs: by priority, then age, skipping what others are about to claim.

Each type is looked at by itself, so that a type whose jobs may not be claimed now costs the others
nothing, however many wait: the heads of all are merged into how many to take of each, and so many
are locked.  The runner's row is locked too, against its deletion: who declares it dead either finds
these jobs, or it gets none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jobs.store.postgresql.session import ask
from jobs.store.protocol import Claimed, StepRecord

_CLAIM = """
WITH clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, statement_timestamp()) AS now
),
me AS MATERIALIZED (
    SELECT id FROM jobs_runner WHERE id = %(runner)s FOR KEY SHARE
),
head AS MATERIALIZED (
    SELECT h.id, h.type_id, h.priority
    FROM unnest(%(types)s::bigint[], %(rooms)s::int[]) AS t (id, room)
    CROSS JOIN LATERAL (
        SELECT j.id, j.type_id, j.priority FROM jobs_job j
        WHERE j.state = 'queued' AND j.type_id = t.id
        ORDER BY j.priority DESC, j.id LIMIT t.room
    ) h
    ORDER BY h.priority DESC, h.id LIMIT %(limit)s
),
share AS MATERIALIZED (
    SELECT type_id, count(*) AS jobs FROM head GROUP BY type_id
),
picked AS MATERIALIZED (
    SELECT p.id FROM share
    CROSS JOIN LATERAL (
        SELECT j.id FROM jobs_job j
        WHERE j.state = 'queued' AND j.type_id = share.type_id AND EXISTS (SELECT FROM me)
        ORDER BY j.priority DESC, j.id LIMIT share.jobs
        FOR UPDATE SKIP LOCKED
    ) p
),
taken AS (
    UPDATE jobs_job j SET state = 'running', claim = j.claim + 1, runner = %(runner)s,
        worker = %(workers)s, started_at = clock.now
    FROM picked, clock WHERE j.id = picked.id
    RETURNING j.*
),
event AS (
    INSERT INTO jobs_jobevent (job_id, at, state, claim, attempt, worker, text)
    SELECT t.id, clock.now, 'running', t.claim, t.attempts + 1, t.worker, '' FROM taken t, clock
),
tally AS (
    INSERT INTO jobs_jobtally (type_id, state, at, entered, "left", seconds)
    SELECT m.type_id, s.state, clock.now, m.jobs * s.entered, m.jobs * s.gone, 0
    FROM (SELECT type_id, count(*) AS jobs FROM taken GROUP BY type_id) m, clock,
        (VALUES ('queued', 0, 1), ('running', 1, 0)) AS s (state, entered, gone)
)
SELECT t.id, t.type_id, t.claim, t.attempts, t.payload, t.tenant, t.priority, t.correlation_id,
    t.service, t.traceparent, t.webhook_url, t.created_at,
    extract(epoch FROM t.deadline_at - clock.now)::float8,
    greatest(0, extract(epoch FROM clock.now - t.run_at))::float8,
    CASE WHEN t.claim > 1 THEN (
        SELECT jsonb_agg(jsonb_build_object('name', s.name, 'stage', s.stage, 'state', s.state,
            'attempts', s.attempts, 'started_at', s.started_at, 'finished_at', s.finished_at,
            'duration_ms', s.duration_ms, 'status_code', s.status_code, 'result', s.result,
            'error', s.error) ORDER BY s.stage, s.id)
        FROM jobs_jobstep s WHERE s.job_id = t.id) END
FROM taken t, clock
ORDER BY t.priority DESC, t.id
"""


def claim(
    runner: str, workers: str, limit: int, rooms: Mapping[int, int], *, now: datetime | None
) -> list[Claimed]:
    """`rooms` says how many of each type may be taken."""
    parameters = {
        "now": now,
        "runner": runner,
        "workers": workers,
        "limit": limit,
        "types": list(rooms),
        "rooms": list(rooms.values()),
    }
    return [_claimed(row) for row in ask(_CLAIM, parameters)]


def _claimed(row: tuple[Any, ...]) -> Claimed:
    return Claimed(
        id=row[0],
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
        created_at=row[11],
        deadline_in_s=row[12],
        waited_s=row[13],
        steps={} if row[14] is None else _steps(row[14]),
    )


def _steps(text: str) -> dict[str, StepRecord]:
    steps = {}
    for one in json.loads(text):
        for name in ("started_at", "finished_at"):
            one[name] = None if one[name] is None else datetime.fromisoformat(one[name])
        steps[one["name"]] = StepRecord(**one)
    return steps
