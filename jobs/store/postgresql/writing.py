"""What workers hand in: steps, ends and returns of many jobs, fenced by claim, in one statement.

Jobs are locked in the order of their ids before any is changed, as everywhere: two who change the
same jobs wait for each other, and do not deadlock.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from jobs.store.groups import WriteRow
from jobs.store.postgresql.session import ask

_encode = msgspec.json.Encoder().encode

_WRITE = """
WITH clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, statement_timestamp()) AS now
),
w AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(rows)s::json) AS w (ord int, id uuid, claim int, state text,
        reason text, worker text, result text, error text, text text, spent int, delay_s float8,
        ran_s float8)
),
held AS MATERIALIZED (
    SELECT j.id, w.ord, j.cancel_asked_at IS NOT NULL AS asked
    FROM w JOIN jobs_job j ON j.id = w.id
    WHERE j.claim = w.claim AND j.state = 'running'
    ORDER BY j.id
    FOR UPDATE OF j
),
ending AS MATERIALIZED (
    SELECT w.*,
        CASE WHEN w.state <> 'again' THEN w.state WHEN held.asked THEN 'cancelled'
            WHEN w.delay_s > 0 THEN 'scheduled' ELSE 'queued' END AS becomes,
        w.state <> 'again' OR held.asked AS finished
    FROM held JOIN w USING (ord) WHERE w.state <> 'progress'
),
moved AS (
    UPDATE jobs_job j SET
        state = e.becomes,
        reason = CASE WHEN e.becomes = 'cancelled' AND e.state = 'again' THEN 'asked'
            ELSE e.reason END,
        attempts = j.attempts + e.spent,
        run_at = CASE WHEN e.finished THEN j.run_at
            ELSE clock.now + make_interval(secs => e.delay_s) END,
        finished_at = CASE WHEN e.finished THEN clock.now END,
        runner = '',
        worker = e.worker,
        result = e.result::jsonb,
        error = CASE WHEN e.state = 'again' AND e.error = '' THEN j.error ELSE e.error END
    FROM ending e, clock WHERE j.id = e.id
    RETURNING j.id, j.type_id, j.state, j.claim, j.attempts, j.worker, e.text,
        CASE WHEN e.finished THEN e.ran_s ELSE 0 END AS ran_s
),
event AS (
    INSERT INTO jobs_jobevent (job_id, at, state, claim, attempt, worker, text)
    SELECT m.id, clock.now, m.state, m.claim, m.attempts, m.worker, m.text FROM moved m, clock
),
tally AS (
    INSERT INTO jobs_jobtally (type_id, state, at, entered, "left", seconds)
    SELECT type_id, 'running', clock.now, 0, count(*), 0 FROM moved, clock
    GROUP BY type_id, clock.now
    UNION ALL
    SELECT type_id, state, clock.now, count(*), 0, sum(ran_s) FROM moved, clock
    GROUP BY type_id, state, clock.now
)
{steps}
SELECT held.ord, ending.becomes FROM held LEFT JOIN ending USING (ord)
"""
_STEPS = """,
step AS (
    INSERT INTO jobs_jobstep AS old (job_id, name, stage, state, attempts, started_at, finished_at,
        duration_ms, status_code, result, error)
    SELECT held.id, s.name, s.stage, s.state, s.attempts, s.started_at, s.finished_at,
        s.duration_ms, s.status_code, s.result::jsonb, s.error
    FROM json_to_recordset(%(steps)s::json) AS s (ord int, name text, stage int, state text,
        attempts int, started_at timestamptz, finished_at timestamptz, duration_ms float8,
        status_code int, result text, error text)
    JOIN held ON held.ord = s.ord
    ON CONFLICT (job_id, name) DO UPDATE SET stage = excluded.stage, state = excluded.state,
        attempts = excluded.attempts, started_at = excluded.started_at,
        finished_at = excluded.finished_at, duration_ms = excluded.duration_ms,
        status_code = excluded.status_code, result = excluded.result, error = excluded.error
)
"""
_WITH_STEPS = _WRITE.format(steps=_STEPS)
_WITHOUT = _WRITE.format(steps="")


def write(rows: Sequence[WriteRow], *, now: datetime | None) -> dict[int, str]:
    """The rows whose claim holds, by index, and what each job became: "" while it goes on."""
    steps = [
        {
            "ord": order,
            "name": step.name,
            "stage": step.stage,
            "state": step.state,
            "attempts": step.attempts,
            "started_at": step.started_at,
            "finished_at": step.finished_at,
            "duration_ms": step.duration_ms,
            "status_code": step.status_code,
            "result": step.result,
            "error": step.error,
        }
        for order, row in enumerate(rows)
        for step in row.steps
    ]
    # One text instead of an array a column: psycopg makes arrays item by item, in Python.
    parameters: dict[str, Any] = {
        "now": now,
        "rows": _encode(
            [
                {
                    "ord": order,
                    "id": row.id,
                    "claim": row.claim,
                    "state": row.state,
                    "reason": row.reason,
                    "worker": row.worker,
                    "result": row.result,
                    "error": row.error,
                    "text": row.text,
                    "spent": row.spent,
                    "delay_s": row.delay_s,
                    "ran_s": row.ran_s,
                }
                for order, row in enumerate(rows)
            ]
        ).decode(),
    }
    if steps:
        parameters["steps"] = _encode(steps).decode()
    found = ask(_WITH_STEPS if steps else _WITHOUT, parameters)
    return {order: becomes or "" for order, becomes in found}
