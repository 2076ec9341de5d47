"""Deleting finished jobs, with their steps and events, some at a time."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from django.db import connection

from jobs.states import OPEN
from jobs.store.models import Job
from jobs.store.story import GONE, chunks, tally

_TABLES = (("jobs_jobevent", "job_id"), ("jobs_jobstep", "job_id"), ("jobs_job", "id"))


def forget(state: str, before: datetime, *, type_id: int | None, limit: int, now: datetime) -> int:
    """Inside a transaction.  Jobs that somebody is changing now are left for another time."""
    if state in OPEN:
        raise ValueError(f"Jobs that are {state} have not ended and cannot be forgotten.")
    old = Job.objects.filter(state=state, finished_at__lt=before)
    if type_id is not None:
        old = old.filter(type_id=type_id)
    chosen = old.order_by("finished_at").select_for_update(skip_locked=True)
    found = list(chosen.values_list("pk", "type_id")[:limit])
    convert = Job._meta.pk.get_db_prep_value
    for chunk in chunks([convert(pk, connection) for pk, _ in found]):
        places = ",".join(["%s"] * len(chunk))
        with connection.cursor() as cursor:
            for table, column in _TABLES:
                cursor.execute(f"DELETE FROM {table} WHERE {column} IN ({places})", chunk)  # noqa: S608
    of_type = Counter(one for _, one in found)
    tally(
        {(one, GONE): jobs for one, jobs in of_type.items()},
        {(one, state): jobs for one, jobs in of_type.items()},
        now,
    )
    return len(found)
