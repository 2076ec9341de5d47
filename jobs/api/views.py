"""`/jobs`: submitting, looking, cancelling, trying again.

`POST /jobs` goes past what DRF does for every request, which would cost more than the job's row
does; the rest is DRF's.  Runs on request threads, of which some are kept for health checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response

from control.auth.models import ApiKey
from control.web.api import READ, Answered, ApiView
from control.web.permits import permits
from control.web.problem import problem
from control.web.requestid import request_id_of
from control.web.retryafter import retry_after
from jobs.api import intake, schema, tools
from jobs.api.answers import is_visible
from jobs.api.documents import MAX_EVENTS, whole
from jobs.api.keyed import CORRELATION
from jobs.api.listing import PARAMETERS, page, type_names, visible
from jobs.api.saturation import Full
from jobs.api.submission import escaped
from jobs.states import CANCELLED, RUNNING
from jobs.store.models import Job, JobEvent, JobStep
from jobs.store.protocol import Changed


class NoSuchJob(Exception):
    def __init__(self, id: UUID) -> None:
        super().__init__(str(id))
        self.id = id


class JobsApiView(ApiView):
    """Takes the scope `jobs`, or to look only `read`; one's own tenant's, but for keys of any."""

    write_scope: ClassVar[str] = intake.SCOPE
    # Whoever submits may see what becomes of it.
    scopes_to_look: ClassVar[tuple[str, ...]] = (READ, intake.SCOPE)
    # Of the one job that is asked for.
    correlation_id = ""
    narrow_by: ClassVar[str] = "status, type, or time"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not permits.try_take():
            return _busy(request)
        try:
            return super().dispatch(request, *args, **kwargs)
        finally:
            permits.give_back()

    def by(self) -> str:
        """Who asks, for the job's story."""
        key = ApiKey.objects.filter(pk=self.principal.key_id or 0).first()
        return f"the API key {key.name}" if key is not None else "a client of the API"

    def one(self, id: UUID) -> Job:
        job = visible(self.principal).filter(pk=id).first()
        if job is None:
            raise NoSuchJob(id)
        self.correlation_id = job.correlation_id
        return job

    def finalize_response(self, *args: Any, **kwargs: Any) -> Any:
        answer = super().finalize_response(*args, **kwargs)
        if self.correlation_id and is_visible(self.correlation_id):
            answer.headers[CORRELATION] = self.correlation_id
        return answer

    def handle_exception(self, exc: Exception) -> Any:
        if isinstance(exc, NoSuchJob):
            return _unknown(self, exc.id)
        answer = super().handle_exception(exc)
        if isinstance(exc, exceptions.ValidationError):
            return _pointed(self, exc)
        return answer


@schema.jobs
class JobsView(JobsApiView):
    parameters: ClassVar[Mapping[str, tuple[str, ...]]] = {"GET": PARAMETERS}

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method != "POST":
            return super().dispatch(request, *args, **kwargs)
        try:
            return intake.take_in(request)
        except Exception as error:
            self.request = request  # type: ignore[assignment]
            self.headers = {}
            return self.handle_exception(error)  # type: ignore[no-any-return]

    def get(self, request: Request) -> Response:
        return page(request, self.principal)

    def post(self, request: HttpRequest) -> HttpResponse:
        return intake.take_in(request)


@schema.job
class JobView(JobsApiView):
    def get(self, request: Request, id: UUID) -> Response:
        return Response(document(self.one(id)))


def document(job: Job) -> dict[str, Any]:
    steps = list(JobStep.objects.filter(job_id=job.pk).order_by("stage", "id"))
    latest = JobEvent.objects.filter(job_id=job.pk).order_by("-id")[: MAX_EVENTS + 1]
    return whole(job, type_names({job.type_id})[job.type_id], steps, list(reversed(latest)))


@schema.cancel
class CancelView(JobsApiView):
    def post(self, request: Request, id: UUID) -> HttpResponse:
        """Harmless again."""
        self.one(id)
        now = _change(self, "cancel", id)
        if now.state == CANCELLED:
            return _told(id, now, 200)
        if now.state == RUNNING:
            # Its runner was told, now or before.
            return _told(id, now, 202)
        return _conflict(self, now, "only a job that has not ended can be cancelled")


@schema.retry
class RetryView(JobsApiView):
    def post(self, request: Request, id: UUID) -> HttpResponse:
        self.one(id)
        try:
            tools.saturation().admit()
        except Full as error:
            raise Answered(_full(self, error)) from None
        now = _change(self, "retry", id)
        if not now.changed:
            return _conflict(self, now, "only one that is dead or cancelled is tried again")
        tools.saturation().taken()
        return _told(id, now, 202)


def _change(view: JobsApiView, verb: Literal["cancel", "retry"], id: UUID) -> Changed:
    changed = tools.the_store().change(verb, [id], by=view.by())
    if id not in changed:  # retention was quicker
        raise NoSuchJob(id)
    return changed[id]


def _told(id: UUID, now: Changed, status: int) -> Response:
    body = {
        "id": str(id),
        "status": now.state,
        "changed": now.changed,
        "cancel_asked": now.state == RUNNING,
    }
    return Response(body, status=status)


def _unknown(view: JobsApiView, id: UUID) -> HttpResponse:
    return problem(
        404,
        title="Not Found",
        detail=f"There is no job {id} that this key may see: it never was, or it is forgotten, as "
        "jobs are some days after their end.",
        code="not_found",
        request_id=request_id_of(view.request._request),
    )


def _pointed(view: JobsApiView, error: exceptions.ValidationError) -> HttpResponse:
    """Each mistake by its place, as those of a submission are; a parameter's is its name."""
    fields = error.detail if isinstance(error.detail, dict) else {"": error.detail}
    errors = [
        {"pointer": f"/{escaped(str(name))}" if name else "", "code": "invalid", "detail": str(one)}
        for name, words in fields.items()
        for one in (words if isinstance(words, list) else [words])
    ]
    return problem(
        400,
        title="Bad Request",
        detail="Some values are not valid; see errors.",
        code="invalid",
        request_id=request_id_of(view.request._request),
        errors=errors,
    )


def _conflict(view: JobsApiView, now: Changed, rule: str) -> HttpResponse:
    return problem(
        409,
        title="Conflict",
        detail=f"The job is {now.state}: {rule}.",
        code="conflict",
        request_id=request_id_of(view.request._request),
        job_status=now.state,
    )


def _full(view: JobsApiView, error: Full) -> HttpResponse:
    return problem(
        429,
        title="Too Many Requests",
        detail=str(error),
        code="saturated",
        request_id=request_id_of(view.request._request),
        headers={"Retry-After": str(retry_after(error.retry_after_s))},
    )


def _busy(request: HttpRequest) -> HttpResponse:
    return problem(
        429,
        title="Too Many Requests",
        detail="All threads that serve jobs are busy.",
        code="saturated",
        request_id=request_id_of(request),
        headers={"Retry-After": "1"},
    )
