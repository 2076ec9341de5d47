"""Answers `control.ports.jobs`: the jobs of one service that were submitted in a window.

The window is a range of ids; a query is stopped at its deadline, and the answer says so.
"""

from __future__ import annotations

import logging
from datetime import datetime
from urllib.parse import urlencode
from uuid import UUID

from django.db import DatabaseError
from django.urls import NoReverseMatch, reverse

from control.admin.deadline import QueryDeadlineExceeded, query_deadline
from control.ports.jobs import MAX_JOBS, JobLine, JobsFound, register_jobs
from jobs.api.listing import type_names
from jobs.ids import first_id_at, submitted_at
from jobs.store.models import Job

logger = logging.getLogger(__name__)

DEADLINE_S = 1.0
ERROR_CHARS = 500


def register() -> None:
    register_jobs(service_jobs, permission="jobs.view_job")


def service_jobs(
    service: str, *, start: datetime, end: datetime, limit: int = MAX_JOBS
) -> JobsFound:
    """The newest jobs first."""
    wanted = max(1, min(limit, MAX_JOBS))
    # The empty service is excluded as its index does.
    rows = (
        Job.objects.exclude(service="")
        .filter(service=service, pk__gte=first_id_at(start), pk__lt=first_id_at(end))
        .defer("payload", "result")
        .order_by("-pk")[: wanted + 1]
    )
    url = _list_url(service)
    try:
        with query_deadline(rows.db, DEADLINE_S):
            found = list(rows)
            names = type_names({job.type_id for job in found})
    except QueryDeadlineExceeded:
        return JobsFound(
            problem=f"The jobs were not found within {DEADLINE_S:g} s; search for them.", url=url
        )
    except DatabaseError as error:
        logger.warning("jobs of a service could not be read", extra={"service": service[:200]})
        return JobsFound(problem=f"The jobs cannot be read: {type(error).__name__}.", url=url)
    lines = tuple(
        JobLine(
            submitted_at=submitted_at(job.pk),
            type=names[job.type_id],
            state=job.state,
            attempts=job.attempts,
            finished_at=job.finished_at,
            correlation_id=job.correlation_id,
            error=job.error[:ERROR_CHARS],
            url=_job_url(job.pk),
        )
        for job in found[:wanted]
    )
    return JobsFound(jobs=lines, url=url, more=len(found) > wanted)


def _job_url(id: UUID) -> str:
    try:
        return reverse("admin:jobs_job_change", args=[id])
    except NoReverseMatch:
        return ""


def _list_url(service: str) -> str:
    try:
        address = reverse("admin:jobs_job_changelist")
    except NoReverseMatch:
        return ""
    return f"{address}?{urlencode({'service': service}, errors='replace')}"
