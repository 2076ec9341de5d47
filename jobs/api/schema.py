"""What `/api/schema` says of jobs."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema_view,
    inline_serializer,
)
from rest_framework import serializers

from control.web.openapi import (
    LIMIT,
    POINTED_PROBLEM,
    operation,
    page_of,
    refusals,
)
from jobs.states import STATES, STEP_STATES

TAG = "jobs"
TEXTS = {
    400: "The request cannot be read: no JSON, nested too deep, or a parameter that is not valid.",
    401: "No API key, or one that is unknown, expired or revoked.",
    403: "The key does not carry the scope: `jobs`, or to look only `read`.",
    404: "There is no such job of the key's tenant, or none any more.",
    409: "The job's status does not allow it; `job_status` says which it is.",
    411: "A body without a Content-Length.",
    413: "The body is too long.",
    415: "The body is not JSON.",
    422: "`errors` names what is wrong; or the Idempotency-Key was used for another job.",
    429: "Too many jobs are open, or requests; come back after `Retry-After` seconds.",
    503: "A database is away, or the type cannot be used; come back after `Retry-After` seconds.",
}
_LOOKING = (400, 401, 403, 429, 503)
_ID = OpenApiParameter("id", OpenApiTypes.UUID, OpenApiParameter.PATH)
_CURSOR = "A job's id: `next` names the address of the next page."
_CORRELATION = OpenApiParameter(
    "X-Correlation-ID",
    {"type": "string", "maxLength": 128},
    OpenApiParameter.HEADER,
    description="Taken along with the job, its calls and log lines, and echoed; else made.",
)
_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "maxLength": 255},
    OpenApiParameter.HEADER,
    description="Sent again within a day, it is one job, and the first answer is given again.",
)


# --- what the operations promise --------------------------------------------------------------

_STATES = (
    "A job is `scheduled` until its time comes, `queued` until a runner takes it, `running`, and "
    "ends as `succeeded`, `dead` (`reason` says why) or `cancelled`; a dead one may be "
    "`discarded`. An attempt that failed for now makes it `scheduled` again."
)
LIST_WORDS = (
    "The jobs of the key's tenant, or of all for a key of any tenant; scope `read` or `jobs`. "
    f"{_STATES} Nothing is counted: follow `next` until it is null. Payloads and results are told "
    "by the job's own address."
)
SUBMIT_WORDS = (
    "Scope `jobs`. A 202 promises that the job is kept: it is in the database before the answer "
    "leaves, and survives whatever process dies. It does not promise success: ask `Location`, or "
    "name a `webhook_url`. A job may be run more than once, so its steps are given a token that is "
    "the same each time.\n\n"
    "With an `Idempotency-Key` the same submission sent again is the same job: it is answered "
    "as at first, with `Idempotency-Replayed: true`; the key with another body is a 422. A "
    "submission that was not answered, or with 429 or 503, may so be sent again unharmed.\n\n"
    "A 422 names all mistakes at once. A 429 says that there is no room: too many jobs "
    "are open, too many wait for a time more than a minute ahead, or the key's rate is used up; "
    f"come back after `Retry-After` seconds.\n\n{_STATES}"
)
LOOK_WORDS = (
    f"Scope `read` or `jobs`. {_STATES} `steps` tells the last call of each step, `events` the "
    "job's story (the last 200). A job is forgotten some days after its end, as its type says; "
    "then this is a 404."
)
CANCEL_WORDS = (
    "Scope `jobs`. One that waits is cancelled at once (200). One that runs is told to end (202): "
    "what its step in flight did is not undone, and if it succeeds first it has succeeded. "
    "Asked again it does no harm. A job that has ended is a 409."
)
RETRY_WORDS = (
    "Scope `jobs`. The job is queued with all its attempts and a deadline anew. Steps that "
    "succeeded keep their results and are not called again; the others are, with the same tokens. "
    "One that waits for its time or its next attempt is run now. It needs room as a new job "
    "does (429)."
)


def _moment(**how: Any) -> serializers.DateTimeField:
    return serializers.DateTimeField(allow_null=True, **how)


def _seconds() -> serializers.FloatField:
    return serializers.FloatField(allow_null=True)


def _listed() -> dict[str, Any]:
    return {
        "id": serializers.UUIDField(),
        "type": serializers.CharField(),
        "status": serializers.ChoiceField(choices=[(one, one) for one in STATES]),
        "reason": serializers.CharField(allow_blank=True, help_text="Why it is dead or cancelled."),
        "tenant": serializers.CharField(),
        "priority": serializers.IntegerField(),
        "correlation_id": serializers.CharField(allow_blank=True),
        "service": serializers.CharField(allow_blank=True),
        "schedule": serializers.CharField(allow_blank=True),
        "attempts": serializers.IntegerField(help_text="Spent ones."),
        "retries": serializers.IntegerField(help_text="How often somebody asked for more."),
        "submitted_at": serializers.DateTimeField(),
        "run_at": serializers.DateTimeField(),
        "deadline": _moment(),
        "started_at": _moment(help_text="Of the last attempt."),
        "finished_at": _moment(),
        "cancel_asked_at": _moment(),
        "error": serializers.CharField(allow_blank=True),
    }


LISTED = inline_serializer(name="JobListed", fields=_listed(), many=True)
WHOLE = inline_serializer(
    name="JobWhole",
    fields={
        **_listed(),
        "payload": serializers.JSONField(allow_null=True),
        "result": serializers.JSONField(allow_null=True),
        "webhook": serializers.BooleanField(help_text="Whether it named one of its own."),
        "timings": inline_serializer(
            name="JobTimings",
            fields={"waited_s": _seconds(), "ran_s": _seconds(), "total_s": _seconds()},
        ),
        "steps": inline_serializer(
            name="JobStepDocument",
            fields={
                "name": serializers.CharField(),
                "stage": serializers.IntegerField(),
                "status": serializers.ChoiceField(choices=[(one, one) for one in STEP_STATES]),
                "attempts": serializers.IntegerField(),
                "started_at": _moment(),
                "finished_at": _moment(),
                "duration_ms": _seconds(),
                "status_code": serializers.IntegerField(allow_null=True),
                "result": serializers.JSONField(allow_null=True),
                "error": serializers.CharField(allow_blank=True),
            },
            many=True,
        ),
        "events": inline_serializer(
            name="JobEventDocument",
            fields={
                "at": serializers.DateTimeField(),
                "status": serializers.CharField(),
                "attempt": serializers.IntegerField(),
                "worker": serializers.CharField(allow_blank=True),
                "text": serializers.CharField(allow_blank=True),
            },
            many=True,
        ),
        "events_omitted": serializers.BooleanField(help_text="There are earlier ones."),
    },
)
SUBMISSION = inline_serializer(
    name="JobSubmission",
    fields={
        "type": serializers.CharField(help_text="A job type's name."),
        "payload": serializers.JSONField(
            required=False, help_text="What the type's schema asks for; left out: {}."
        ),
        "priority": serializers.IntegerField(
            required=False, min_value=0, max_value=9, help_text="9 goes first."
        ),
        "run_at": serializers.JSONField(
            required=False, help_text="Not before: a time (RFC 3339), or seconds from now."
        ),
        "deadline": serializers.JSONField(
            required=False,
            help_text="Dead from then on: a time (RFC 3339), or seconds from when it may run.",
        ),
        "service": serializers.CharField(
            required=False, max_length=200, help_text="Whose job it is, for that service's page."
        ),
        "webhook_url": serializers.CharField(
            required=False, max_length=500, help_text="Told when the job has ended."
        ),
        "tenant": serializers.CharField(
            required=False, help_text="For keys that may write for any."
        ),
    },
)
ACCEPTED = inline_serializer(
    name="JobAccepted",
    fields={
        "id": serializers.UUIDField(),
        "status": serializers.ChoiceField(choices=[(one, one) for one in STATES]),
        "type": serializers.CharField(),
        "submitted_at": serializers.DateTimeField(),
        "correlation_id": serializers.CharField(),
        "correlation_id_replaced": serializers.BooleanField(
            help_text="One was sent that cannot be taken: not 1 to 128 visible ASCII characters."
        ),
        "url": serializers.CharField(),
    },
)
CHANGED = inline_serializer(
    name="JobChanged",
    fields={
        "id": serializers.UUIDField(),
        "status": serializers.ChoiceField(choices=[(one, one) for one in STATES]),
        "changed": serializers.BooleanField(help_text="Whether this request did it."),
        "cancel_asked": serializers.BooleanField(help_text="It runs, and was told to end."),
    },
)


def _responses(answers: dict[int, tuple[Any, str]], *more: int) -> dict[Any, Any]:
    told: dict[Any, Any] = {
        status: OpenApiResponse(body, description=text) for status, (body, text) in answers.items()
    }
    return {**told, **refusals((*_LOOKING, *more), TEXTS, POINTED_PROBLEM)}


jobs = extend_schema_view(
    get=operation(
        "jobs_list",
        "List jobs, newest first",
        TAG,
        description=LIST_WORDS,
        parameters=[
            OpenApiParameter("status", str, description="One or more, separated by commas."),
            OpenApiParameter("type", str),
            OpenApiParameter("correlation_id", str),
            OpenApiParameter("service", str),
            OpenApiParameter("tenant", str),
            OpenApiParameter("since", OpenApiTypes.DATETIME, description="Submitted from then on."),
            OpenApiParameter("until", OpenApiTypes.DATETIME, description="Submitted before then."),
            OpenApiParameter("before", OpenApiTypes.UUID, description=_CURSOR),
            OpenApiParameter(
                "after", OpenApiTypes.UUID, description=f"{_CURSOR} Then the oldest come first."
            ),
            LIMIT,
        ],
        responses=_responses({200: (page_of("JobPage", LISTED), "Newest first.")}),
    ),
    post=operation(
        "jobs_submit",
        "Submit a job",
        TAG,
        description=SUBMIT_WORDS,
        parameters=[_CORRELATION, _KEY],
        request=SUBMISSION,
        responses={
            **_responses(
                {202: (ACCEPTED, "Kept; `Location` names where to look.")}, 411, 413, 415, 422
            ),
        },
        examples=[
            OpenApiExample(
                "a verification",
                value={"type": "ekyc-verification", "payload": {"user_id": 456}},
                request_only=True,
            )
        ],
    ),
)
job = extend_schema_view(
    get=operation(
        "jobs_retrieve",
        "Look at a job: its steps, result and story",
        TAG,
        description=LOOK_WORDS,
        parameters=[_ID],
        responses=_responses({200: (WHOLE, "The job.")}, 404),
    )
)
cancel = extend_schema_view(
    post=operation(
        "jobs_cancel",
        "Cancel a job, running or not",
        TAG,
        description=CANCEL_WORDS,
        parameters=[_ID],
        request=None,
        responses=_responses(
            {
                200: (CHANGED, "It is cancelled."),
                202: (CHANGED, "It runs, and its runner was told."),
            },
            *(404, 409, 411, 413),
        ),
    )
)
retry = extend_schema_view(
    post=operation(
        "jobs_retry",
        "Try a dead or cancelled job again, with all its attempts",
        TAG,
        description=RETRY_WORDS,
        parameters=[_ID],
        request=None,
        responses=_responses({202: (CHANGED, "It is queued.")}, *(404, 409, 411, 413)),
    )
)
