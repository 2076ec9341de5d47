"""What workers hand in: steps, ends and returns of many jobs, fenced by claim, in one statement.

Jobs are locked in the order of their ids before any is changed, as everywhere: two who change the
same jobs wait for each other, and do not deadlock.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from jobs.store.groups import WriteRow
from jobs.store.postgresql.session import cursor

_WRITE = """
WITH clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, statement_timestamp()) AS now
),
w AS MATERIALIZED (
    SELECT * FROM unnest(%(ids)s::uuid[], %(claims)s::int[], %(states)s::text[],
        %(reasons)s::text[], %(workers)s::text[], %(results)s::text[], %(errors)s::text[],
        %(texts)s::text[], %(spents)s::int[], %(delays)s::float8[], %(rans)s::float8[]
    ) WITH ORDINALITY AS w (id, claim, state, reason, worker, result, error, text, spent, delay_s,
        ran_s, ord)
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
    FROM unnest(%(step_ords)s::int[], %(step_names)s::text[], %(step_stages)s::int[],
        %(step_states)s::text[], %(step_attempts)s::int[], %(step_starts)s::timestamptz[],
        %(step_ends)s::timestamptz[], %(step_took)s::float8[], %(step_codes)s::int[],
        %(step_results)s::text[], %(step_errors)s::text[]
    ) AS s (ord, name, stage, state, attempts, started_at, finished_at, duration_ms, status_code,
        result, error)
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
    steps = [(order, step) for order, row in enumerate(rows, 1) for step in row.steps]
    parameters: dict[str, Any] = {
        "now": now,
        "ids": [row.id for row in rows],
        "claims": [row.claim for row in rows],
        "states": [row.state for row in rows],
        "reasons": [row.reason for row in rows],
        "workers": [row.worker for row in rows],
        "results": [row.result for row in rows],
        "errors": [row.error for row in rows],
        "texts": [row.text for row in rows],
        "spents": [row.spent for row in rows],
        "delays": [row.delay_s for row in rows],
        "rans": [row.ran_s for row in rows],
    }
    if steps:
        parameters |= {
            "step_ords": [order for order, _ in steps],
            "step_names": [step.name for _, step in steps],
            "step_stages": [step.stage for _, step in steps],
            "step_states": [step.state for _, step in steps],
            "step_attempts": [step.attempts for _, step in steps],
            "step_starts": [step.started_at for _, step in steps],
            "step_ends": [step.finished_at for _, step in steps],
            "step_took": [step.duration_ms for _, step in steps],
            "step_codes": [step.status_code for _, step in steps],
            "step_results": [step.result for _, step in steps],
            "step_errors": [step.error for _, step in steps],
        }
    with cursor() as asked:
        asked.execute(_WITH_STEPS if steps else _WITHOUT, parameters)
        return {order - 1: becomes or "" for order, becomes in asked.fetchall()}
