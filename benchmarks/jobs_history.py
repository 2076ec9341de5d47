"""Owns: finished jobs by the hundred thousand, made by SQL as the product would have left them.

Spread over six days: of a hundred 97 succeeded, two are dead, one was cancelled; one in ten has its
whole story, three events and three steps.  Counts and the last hour's minutes are there as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta

from django.db import connection
from django.utils import timezone

from jobs.store.models import JobMinute, JobTally
from jobs.types.models import JobType

CHUNK = 50_000
SPAN = timedelta(days=6)

_STATE = """CASE n % 100 WHEN 0 THEN 'cancelled' WHEN 1 THEN 'dead' WHEN 2 THEN 'dead'
    ELSE 'succeeded' END"""
_COLUMNS = """
    id, tenant, state, reason, priority, payload, correlation_id, service, submitted_by, request_id,
    traceparent, webhook_url, schedule, attempts, claim, retries, created_at, run_at, deadline_at,
    started_at, finished_at, runner, worker, error, type_id
"""


def _rows(*, id: str, payload: str, at: str, later: str, series: str) -> str:
    """The statement's heart; `at` and `later` are times of row n, the second an hour later."""
    return f"""
SELECT {id}, 'default', {_STATE}, CASE WHEN n % 100 IN (1, 2) THEN 'permanent' ELSE '' END, 5,
    {payload}, 'order-' || n, 'service-' || n % 20, 'the API key bench', '', '', '', '', 1, 1, 0,
    {at}, {at}, {later}, {at}, {at}, '', 'bench:1/jobs-1',
    CASE WHEN n % 100 IN (1, 2) THEN 'verify: 404 Not Found' ELSE '' END, :type
FROM {series}
"""


_POSTGRESQL = f"INSERT INTO jobs_job ({_COLUMNS})" + _rows(
    id="(lpad(to_hex(ms), 12, '0') || '7' || lpad(to_hex(n % 4096), 3, '0') || '8' "
    "|| substr(md5(n::text), 1, 15))::uuid",
    payload="jsonb_build_object('user_id', n)",
    at="to_timestamp(ms / 1000.0)",
    later="to_timestamp(ms / 1000.0 + 3600)",
    series="""(
        SELECT n, (:start + n * (:span / :jobs))::bigint AS ms
        FROM generate_series(:first::bigint, :last::bigint) AS n) made""",
)
_SQLITE = f"INSERT INTO jobs_job ({_COLUMNS})" + _rows(
    id="printf('%012x7%03x8%015x', ms, n % 4096, n * 7919)",
    payload="json_object('user_id', n)",
    at="strftime('%Y-%m-%d %H:%M:%f000', ms / 1000.0, 'unixepoch')",
    later="strftime('%Y-%m-%d %H:%M:%f000', ms / 1000.0 + 3600, 'unixepoch')",
    series="""(
        WITH RECURSIVE counted (n) AS (
            SELECT :first UNION ALL SELECT n + 1 FROM counted WHERE n < :last)
        SELECT n, CAST(:start + n * (:span / :jobs) AS INTEGER) AS ms FROM counted) made""",
)
_STORY = (
    """
INSERT INTO jobs_jobevent (job_id, at, state, claim, attempt, worker, text)
SELECT id, created_at, s.state, s.claim, s.claim, worker, '' FROM jobs_job,
    (SELECT 'queued' AS state, 0 AS claim UNION ALL SELECT 'running', 1
     UNION ALL SELECT 'succeeded', 1) s
WHERE type_id = :type AND priority = 5 AND correlation_id LIKE 'order-%5'
""",
    """
INSERT INTO jobs_jobstep (job_id, name, stage, state, attempts, started_at, finished_at,
    duration_ms, status_code, error)
SELECT id, s.name, 1, 'succeeded', 1, started_at, finished_at, 12.5, 200, '' FROM jobs_job,
    (SELECT 'document' AS name UNION ALL SELECT 'face' UNION ALL SELECT 'sanctions') s
WHERE type_id = :type AND priority = 5 AND correlation_id LIKE 'order-%5'
""",
)


def fill(jobs: int, type_name: str) -> None:
    """Add them to what is there."""
    type = JobType.objects.get_or_create(name=type_name)[0]
    now = timezone.now()
    start = now - SPAN
    values = {
        "type": type.pk,
        "start": int(start.timestamp() * 1000),
        "span": SPAN.total_seconds() * 1000,
        "jobs": jobs,
    }
    before = _counted(type.pk)
    statement = _POSTGRESQL if connection.vendor == "postgresql" else _SQLITE
    for first in range(0, jobs, CHUNK):
        _execute(statement, {**values, "first": first, "last": min(first + CHUNK, jobs) - 1})
    for story in _STORY:
        _execute(story, values)
    made = _counted(type.pk) - before
    if made.total() != jobs:
        raise RuntimeError(f"{jobs} finished jobs wanted, made {made}")
    JobTally.objects.bulk_create(
        JobTally(type=type, state=state, at=start, entered=count) for state, count in made.items()
    )
    minute = now.replace(second=0, microsecond=0)
    for ago in range(1, 60):
        happened = {"submitted": 100, "started": 100, "succeeded": 97, "dead": 2, "cancelled": 1}
        JobMinute.objects.get_or_create(
            type=type, at=minute - timedelta(minutes=ago), defaults={**happened, "seconds": 1.2}
        )
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # Else the server's own vacuum and checkpoint would come in the middle of a measurement.
            cursor.execute("VACUUM ANALYZE")
            cursor.execute("CHECKPOINT")
        else:
            cursor.execute("ANALYZE")


def _counted(type_id: int) -> Counter[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT state, count(*) FROM jobs_job WHERE type_id = %s GROUP BY state", [type_id]
        )
        return Counter(dict(cursor.fetchall()))


def _execute(statement: str, values: Mapping[str, float]) -> None:
    """Named parameters, in both drivers' ways; each takes only those that are named."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            names = sorted(values, key=len, reverse=True)
            text = statement.replace("%", "%%").replace("::", "\0")
            for name in names:
                text = text.replace(f":{name}", f"%({name})s")
            cursor.execute(text.replace("\0", "::"), values)
            return
        cursor.connection.execute(statement, values)
