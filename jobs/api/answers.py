"""The answers to a submission: 202 with the job's id, or a problem that says what to do."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from django.http import HttpRequest, HttpResponse

from control.web.problem import problem, title_of
from control.web.requestid import request_id_of
from jobs import metrics
from jobs.api import requestlog
from jobs.api.moments import stamp
from jobs.api.submission import Invalid, Wanted
from jobs.ids import submitted_at
from jobs.states import QUEUED, SCHEDULED

_encode = msgspec.json.Encoder().encode


class _Accepted(msgspec.Struct, gc=False):
    """The body of a 202."""

    id: str
    status: str
    type: str
    submitted_at: str
    correlation_id: str
    correlation_id_replaced: bool
    url: str


class Refusal(Exception):
    """The answer that refuses a submission."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        reason: str = "",
        retry_after_s: int | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.reason = reason  # as the metric names it
        self.retry_after_s = retry_after_s
        self.extra = extra


def is_visible(text: str) -> bool:
    """Nothing but visible ASCII characters, as a header may carry it."""
    return text.isascii() and text.isprintable() and " " not in text


def acceptance(
    job_id: UUID, wanted: Wanted, correlation_id: str, *, replaced: bool = False
) -> bytes:
    return _encode(
        _Accepted(
            str(job_id),
            QUEUED if wanted.run_at is None else SCHEDULED,
            wanted.type.name,
            stamp(submitted_at(job_id)) or "",
            correlation_id,
            replaced,
            f"/jobs/{job_id}",
        )
    )


def invalid(error: Invalid) -> Refusal:
    first = error.errors[0]
    where = first.pointer or "the body"
    more = f" ({len(error.errors)} mistakes)" if len(error.errors) > 1 else ""
    return Refusal(
        422,
        "invalid",
        f"{where}: {first.detail}{more}",
        reason=error.reason,
        errors=[
            {"pointer": one.pointer, "code": one.code, "detail": one.detail} for one in error.errors
        ],
    )


def refused(request: HttpRequest, refusal: Refusal, correlation_id: str) -> HttpResponse:
    request_id = request_id_of(request)
    metrics.count_refused(refusal.reason or "other")
    requestlog.log_refused(
        request_id=request_id,
        correlation_id=correlation_id,
        status=refusal.status,
        code=refusal.code,
        detail=refusal.detail,
    )
    after = refusal.retry_after_s
    return problem(
        refusal.status,
        title=title_of(refusal.status),
        detail=refusal.detail,
        code=refusal.code,
        request_id=request_id,
        headers=None if after is None else {"Retry-After": str(after)},
        **refusal.extra,
    )
