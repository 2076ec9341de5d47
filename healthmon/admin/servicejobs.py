"""The jobs of a target's service, beside its logs: what was submitted for it within a day.

Bounded by the port that answers; shown to who may view jobs, as a target may name any service.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from control.admin.inert import inert
from control.ports.jobs import JobLine, JobsFound, jobs_of, jobs_permission
from healthmon.models import Target

SHOWN = 15
WINDOW = timedelta(days=1)


def context(target: Target, now: datetime, user: Any) -> dict[str, Any]:
    permission = jobs_permission()
    if permission and not user.has_perm(permission):
        return {"jobs": None, "job_rows": []}
    found: JobsFound | None = jobs_of(
        target.log_service, start=now - WINDOW, end=now + timedelta(minutes=1), limit=SHOWN
    )
    return {
        "jobs": found,
        "job_service": inert(target.log_service, limit=200),
        "job_rows": [_row(line) for line in (found.jobs if found is not None else ())],
    }


def _row(line: JobLine) -> dict[str, Any]:
    ran = line.finished_at
    return {
        "at": line.submitted_at,
        "url": line.url,
        "type": inert(line.type, limit=63),
        "state": line.state,
        "attempts": line.attempts,
        "finished_at": ran,
        "correlation_id": inert(line.correlation_id, limit=128),
        "error": inert(line.error, limit=300),
    }
