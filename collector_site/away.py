"""What the pages say while a database is away: 503 with the cause, instead of a traceback.

The middleware runs on request threads. It stands before sessions and logins, which need the
control database themselves: while that is known to be away, no page tries to reach it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator

from django.conf import settings
from django.db import Error as DatabaseProblem
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string

from control.databases.causes import cause_of, is_loss
from control.databases.reach import reach_of
from control.processes.heart import heart
from control.web import problem
from control.web.requestid import request_id_of

logger = logging.getLogger(__name__)

CONTROL, RECORDS = "default", "records"
NAMES = {CONTROL: "control", RECORDS: "records"}
RETRY_AFTER_S = 5
# Served from files or from memory.
NEEDS_NO_DATABASE = ("/static/", "/api/", "/ping/", "/status/", "/badge/")


class AwayMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not request.path.startswith(NEEDS_NO_DATABASE):
            cause = known_cause(CONTROL)
            if cause:
                return away(request, CONTROL, cause)
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        return answer_for(request, exception)


def server_error(request: HttpRequest) -> HttpResponseBase:
    """`handler500`: errors that no view raised, such as those of storing a session."""
    exception = sys.exc_info()[1]
    answer = answer_for(request, exception) if exception is not None else None
    return answer or problem.server_error(request)


def answer_for(request: HttpRequest, exception: BaseException) -> HttpResponse | None:
    """The page for an error that a lost database explains; None when none is lost."""
    if not isinstance(exception, DatabaseProblem) or not is_loss(exception):
        return None
    for alias, cause in _lost(exception):
        logger.warning(
            "a page was not shown: a database is away",
            extra={"database": alias, "cause": cause, "path": request.path[:200]},
        )
        return away(request, alias, cause)
    return None


def known_cause(alias: str) -> str:
    """Why the database is away, as far as this process knows; asks nobody."""
    cause = reach_of(alias).cause
    if not cause and heart().database_cause(alias) is not None:
        cause = heart().database_loss(alias) or ""
    return cause


def _lost(exception: BaseException) -> Iterator[tuple[str, str]]:
    """Which database it is. The error does not say: those not known to be away are asked."""
    for alias in (CONTROL, RECORDS):
        cause = known_cause(alias) or _ask(alias)
        if cause:
            yield alias, cause
    cause = cause_of(exception)
    if cause != type(exception).__name__:
        # It answers by now, or what was asked for is not there.
        yield (CONTROL if settings.RECORDS_SHARE_DEFAULT else RECORDS), cause


def _ask(alias: str) -> str:
    connection = connections[alias]
    try:
        if not connection.in_atomic_block:
            connection.close()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseProblem as error:
        return cause_of(error)
    return ""


def away(request: HttpRequest, alias: str, cause: str) -> HttpResponse:
    name = NAMES.get(alias, alias)
    headers = {"Retry-After": str(RETRY_AFTER_S), "Cache-Control": "no-store"}
    title = f"The {name} database is away"
    if "text/html" not in request.headers.get("Accept", "") and not request.path.startswith(
        "/admin/"
    ):
        return problem.problem(
            503,
            title=title,
            detail=f"the {name} database is away: {cause}",
            code="database_away",
            request_id=request_id_of(request),
            headers=headers,
        )
    page = render_to_string(
        "collector_site/away.html",
        {"title": title, "name": name, "cause": cause, "retry_s": RETRY_AFTER_S},
    )
    return HttpResponse(page, status=503, headers=headers)
