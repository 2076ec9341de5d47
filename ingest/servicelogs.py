"""Answers `control.ports.logs`: the stored logs of one service in a window of their arrival.

The window is a range of ids, as everywhere records are listed, so that PostgreSQL reads only the
partitions concerned; a query is stopped at its deadline, and the answer says so.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from urllib.parse import urlencode

from django.db import DatabaseError
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from control.admin.deadline import QueryDeadlineExceeded, query_deadline
from control.ports.logs import MAX_LINES, LogLine, LogsFound, register_logs
from ingest.models import LogRecord
from pipeline.ids import first_id_at

logger = logging.getLogger(__name__)

DEADLINE_S = 1.0
MESSAGE_CHARS = 2_000
# Records arrive a little after they were written.
LATE = timedelta(seconds=10)


def register() -> None:
    register_logs(service_logs, permission="ingest.view_logrecord")


def service_logs(
    service: str, *, start: datetime, end: datetime, limit: int = MAX_LINES
) -> LogsFound:
    """The newest lines first."""
    wanted = max(1, min(limit, MAX_LINES))
    rows = (
        LogRecord.objects.filter(
            id__gte=first_id_at(_us(start)), id__lt=first_id_at(_us(end + LATE)), service=service
        )
        .order_by("-id")
        .values_list("id", "timestamp", "level", "message")[: wanted + 1]
    )
    url = _list_url(service, start, end + LATE)
    try:
        with query_deadline(rows.db, DEADLINE_S):
            found = list(rows)
    except QueryDeadlineExceeded:
        return LogsFound(
            problem=f"The logs were not found within {DEADLINE_S:g} s; search for them.", url=url
        )
    except DatabaseError as error:
        logger.warning("logs of a service could not be read", extra={"service": service})
        return LogsFound(problem=f"The logs cannot be read: {type(error).__name__}.", url=url)
    lines = tuple(
        LogLine(at=at, level=level, message=message[:MESSAGE_CHARS], url=_record_url(pk))
        for pk, at, level, message in found[:wanted]
    )
    return LogsFound(lines=lines, url=url, more=len(found) > wanted)


def _us(moment: datetime) -> int:
    return max(int(moment.timestamp() * 1_000_000), 0)


def _record_url(pk: int) -> str:
    try:
        return reverse("admin:ingest_logrecord_change", args=[pk])
    except NoReverseMatch:
        return ""


def _list_url(service: str, start: datetime, end: datetime) -> str:
    try:
        address = reverse("admin:ingest_logrecord_changelist")
    except NoReverseMatch:
        return ""
    window = {
        "window": "custom",
        "from": f"{timezone.localtime(start):%Y-%m-%dT%H:%M:%S}",
        "to": f"{timezone.localtime(end):%Y-%m-%dT%H:%M:%S}",
    }
    return f"{address}?{urlencode({**window, 'service': service}, errors='replace')}"
