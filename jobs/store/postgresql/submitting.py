"""Taking jobs in: the jobs, their first events, the tallies and the keys, in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from django.db import connection

from control.idempotency.models import DONE, IdempotencyKey
from jobs.store.postgresql.session import CHANNEL, QUEUED_WORD, ask
from jobs.store.protocol import Draft, Repeated
from jobs.store.values import json_text

PATH = "/jobs"
# With so many waiting nobody sleeps, and each further word would hold up other commits.
BUSY = 32

_KEYS = """
keyed AS (
    INSERT INTO control_idempotencykey AS k (id, tenant, path, key, digest, state, log_id, parts,
        kept, status, response, claimed_at, expires_at)
    SELECT d.key_id, d.tenant, %(path)s, d.key, d.digest, %(done)s, '', '[]', '[]', d.status,
        d.response, clock.now, clock.now + make_interval(secs => d.keep_s)
    FROM draft d, clock WHERE d.key IS NOT NULL
    ORDER BY d.tenant, d.key
    ON CONFLICT (tenant, path, key) DO UPDATE SET
        id = excluded.id, digest = excluded.digest, state = excluded.state, log_id = '',
        parts = '[]', kept = '[]', status = excluded.status, response = excluded.response,
        claimed_at = excluded.claimed_at, expires_at = excluded.expires_at
    WHERE k.expires_at <= excluded.claimed_at
    RETURNING k.id
),
wanted AS MATERIALIZED (
    SELECT * FROM draft d WHERE d.key IS NULL OR d.key_id IN (SELECT id FROM keyed)
),
"""
_NO_KEYS = "wanted AS (SELECT * FROM draft),"

_MANY = """
draft AS MATERIALIZED (
    SELECT * FROM unnest(
        %(ids)s::uuid[], %(types)s::bigint[], %(payloads)s::text[], %(tenants)s::text[],
        %(priorities)s::int[], %(run_ats)s::timestamptz[], %(deadline_ats)s::timestamptz[],
        %(deadlines)s::float8[], %(correlations)s::text[], %(services)s::text[],
        %(submitters)s::text[], %(requests)s::text[], %(traces)s::text[], %(webhooks)s::text[],
        %(schedules)s::text[], %(key_ids)s::uuid[], %(keys)s::text[], %(digests)s::text[],
        %(statuses)s::int[], %(responses)s::text[], %(keeps)s::float8[]
    ) WITH ORDINALITY AS d (id, type_id, payload, tenant, priority, run_at, deadline_at, deadline_s,
        correlation_id, service, submitted_by, request_id, traceparent, webhook_url, schedule,
        key_id, key, digest, status, response, keep_s, ord)
),
"""
# Of one, the usual case: plain values cost both sides less than arrays of one.
_ONE = """
draft AS MATERIALIZED (
    SELECT %(ids)s::uuid AS id, %(types)s::bigint AS type_id, %(payloads)s::text AS payload,
        %(tenants)s::text AS tenant, %(priorities)s::int AS priority,
        %(run_ats)s::timestamptz AS run_at, %(deadline_ats)s::timestamptz AS deadline_at,
        %(deadlines)s::float8 AS deadline_s, %(correlations)s::text AS correlation_id,
        %(services)s::text AS service, %(submitters)s::text AS submitted_by,
        %(requests)s::text AS request_id, %(traces)s::text AS traceparent,
        %(webhooks)s::text AS webhook_url, %(schedules)s::text AS schedule,
        %(key_ids)s::uuid AS key_id, %(keys)s::text AS key, %(digests)s::text AS digest,
        %(statuses)s::int AS status, %(responses)s::text AS response, %(keeps)s::float8 AS keep_s,
        1 AS ord
),
"""
_STATEMENT = """
WITH clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, statement_timestamp()) AS now
),
{drafts}
{keys}
job AS (
    INSERT INTO jobs_job (id, tenant, state, reason, priority, payload, correlation_id, service,
        submitted_by, request_id, traceparent, webhook_url, schedule, attempts, claim, retries,
        created_at, run_at, deadline_at, runner, worker, error, type_id)
    SELECT w.id, w.tenant, CASE WHEN w.run_at > clock.now THEN 'scheduled' ELSE 'queued' END, '',
        w.priority, w.payload::jsonb, w.correlation_id, w.service, w.submitted_by, w.request_id,
        w.traceparent, w.webhook_url, w.schedule, 0, 0, 0, clock.now,
        greatest(w.run_at, clock.now),
        coalesce(w.deadline_at,
            greatest(w.run_at, clock.now) + make_interval(secs => w.deadline_s)),
        '', '', '', w.type_id
    FROM wanted w, clock
    ON CONFLICT (id) DO NOTHING
    RETURNING id, type_id, state
),
event AS (
    INSERT INTO jobs_jobevent (job_id, at, state, claim, attempt, worker, text)
    SELECT job.id, clock.now, job.state, 0, 0, '', '' FROM job, clock
),
tally AS (
    INSERT INTO jobs_jobtally (type_id, state, at, entered, "left", seconds)
    SELECT type_id, state, min(clock.now), count(*), 0, 0 FROM job, clock GROUP BY type_id, state
)
SELECT (SELECT array_agg(ord) FROM wanted),
    (SELECT pg_notify(%(channel)s, %(word)s) FROM (
        SELECT DISTINCT type_id FROM job WHERE state = 'queued') fresh
     WHERE (SELECT count(*) FROM (
        SELECT FROM jobs_job q WHERE q.state = 'queued' AND q.type_id = fresh.type_id
        LIMIT %(busy)s) waiting) < %(busy)s
     LIMIT 1)
"""
# By whether there is but one draft, and whether any has a key.
_STATEMENTS = {
    (single, keyed): _STATEMENT.format(
        drafts=_ONE if single else _MANY, keys=_KEYS if keyed else _NO_KEYS
    )
    for single in (True, False)
    for keyed in (True, False)
}


def submit(drafts: Sequence[Draft], *, now: datetime | None) -> list[Repeated | None]:
    answers: list[Repeated | None] = [None] * len(drafts)
    left = list(range(len(drafts)))
    while left:
        batch = _without_repeats(drafts, left)
        kept = _insert([drafts[index] for index in batch], now)
        inserted = {batch[order - 1] for order in kept}
        for index in batch:
            if index not in inserted:
                # None: the key went meanwhile, and is there for the taking.
                answers[index] = _first_answer(drafts[index])
        batched = set(batch)
        left = [
            index
            for index in left
            if index not in inserted and (index not in batched or answers[index] is None)
        ]
    return answers


def _without_repeats(drafts: Sequence[Draft], left: Sequence[int]) -> list[int]:
    """The first of each key: a statement writes no row twice."""
    seen: set[Any] = set()
    batch = []
    for index in left:
        draft = drafts[index]
        place = draft.id if draft.keyed is None else (draft.tenant, draft.keyed.key)
        if place not in seen:
            seen.add(place)
            batch.append(index)
    return batch


def _insert(drafts: Sequence[Draft], now: datetime | None) -> list[int]:
    columns = [_values(draft) for draft in drafts]
    single = len(drafts) == 1
    parameters: dict[str, Any] = (
        columns[0] if single else {name: [one[name] for one in columns] for name in columns[0]}
    )
    parameters |= {
        "now": now,
        "path": PATH,
        "done": DONE,
        "channel": CHANNEL,
        "word": QUEUED_WORD,
        "busy": BUSY,
    }
    statement = _STATEMENTS[single, any(draft.keyed for draft in drafts)]
    ((kept, _),) = ask(statement, parameters)
    return kept or []


def _values(draft: Draft) -> dict[str, Any]:
    key = draft.keyed
    return {
        "ids": draft.id,
        "types": draft.type_id,
        "payloads": json_text(draft.payload, what="the payload"),
        "tenants": draft.tenant,
        "priorities": draft.priority,
        "run_ats": draft.run_at,
        "deadline_ats": draft.deadline_at,
        "deadlines": draft.deadline_s,
        "correlations": draft.correlation_id,
        "services": draft.service,
        "submitters": draft.submitted_by,
        "requests": draft.request_id,
        "traces": draft.traceparent,
        "webhooks": draft.webhook_url,
        "schedules": draft.schedule,
        "key_ids": None if key is None else uuid4(),
        "keys": None if key is None else key.key,
        "digests": None if key is None else key.digest,
        "statuses": None if key is None else key.status,
        "responses": None if key is None else key.response,
        "keeps": None if key is None else key.keep_s,
    }


def _first_answer(draft: Draft) -> Repeated | None:
    assert draft.keyed is not None
    # Within somebody's transaction the row may be younger than its snapshot: lock, to see it.
    keys = IdempotencyKey.objects.filter(tenant=draft.tenant, path=PATH, key=draft.keyed.key)
    if connection.in_atomic_block:
        keys = keys.select_for_update()
    first = keys.first()
    if first is None:
        return None
    return Repeated(digest=first.digest, status=first.status, response=first.response)
