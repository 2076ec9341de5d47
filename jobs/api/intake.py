"""One submission on its way in: who sends it, whether there is room, what it says, its job.

Everything that can refuse a request without its body does so first, so that a refusal stays cheap
under load.  Runs on the request's thread; the job, its event and the key's row are written in one
transaction of the Store's before the 202 leaves.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import Error as DatabaseProblem
from django.http import HttpRequest, HttpResponse

from control.auth.keys import Principal
from control.auth.limits import key_limits
from control.databases.causes import cause_of, is_loss
from control.idempotency.header import BadKey, key_of
from control.web.access import authorize
from control.web.api import unavailable
from control.web.jsonbody import BadJson, decode_json
from control.web.permits import permits
from control.web.requestid import request_id_of
from control.web.retryafter import retry_after
from jobs import metrics
from jobs.api import keyed, requestlog, tools
from jobs.api.answers import Refusal, acceptance, invalid, is_visible, refused
from jobs.api.keyed import CORRELATION
from jobs.api.outlook import LATER_S
from jobs.api.saturation import Full
from jobs.api.submission import Invalid, TypeBroken, Wanted, read_submission
from jobs.ids import new_job_id
from jobs.payloads import SchemaError
from jobs.store.protocol import Draft, KeyedBy, Repeated
from jobs.tracing import submitted_span
from jobs.webhooks.policy import policy

SCOPE = "jobs"
MAX_CORRELATION_CHARS = 128
_TRACEPARENT_CHARS = 55
# What clients send that do not say what they send; curl's -d says form.
_TYPES = frozenset({"", "application/json", "application/x-www-form-urlencoded", "text/plain"})


def take_in(request: HttpRequest) -> HttpResponse:
    """Answer `POST /jobs`."""
    correlation_id = correlation_of(request)
    response = _answer(request, correlation_id)
    # The job's own, where it was there before.
    response.headers.setdefault(CORRELATION, correlation_id)
    return response


def correlation_of(request: HttpRequest) -> str:
    """What was sent if it is 1 to 128 visible ASCII characters, else the request's own id."""
    sent: str = request.META.get("HTTP_X_CORRELATION_ID", "")
    if 0 < len(sent) <= MAX_CORRELATION_CHARS and is_visible(sent):
        return sent
    return request_id_of(request)


def _answer(request: HttpRequest, correlation_id: str) -> HttpResponse:
    principal = authorize(request, SCOPE)
    if isinstance(principal, HttpResponse):
        return principal
    try:
        key = _before_reading(request, principal)
        if not permits.try_take():
            raise Refusal(
                429,
                "saturated",
                "All threads that take work in are busy.",
                reason="saturated",
                retry_after_s=1,
            )
        try:
            return _submit(request, principal, correlation_id, key)
        finally:
            permits.give_back()
    except Refusal as refusal:
        return refused(request, refusal, correlation_id)
    except DatabaseProblem as error:
        if not is_loss(error):
            raise
        metrics.count_refused("database")
        detail = f"The job was not taken: a database is away: {cause_of(error)}"
        return unavailable(request, detail, "database_away")


def _before_reading(request: HttpRequest, principal: Principal) -> str | None:
    """The request's Idempotency-Key.  Raises Refusal."""
    meta = request.META
    limit = settings.COLLECTOR.jobs.max_payload_bytes
    if "HTTP_TRANSFER_ENCODING" in meta:
        raise Refusal(411, "length_required", "A submission needs a Content-Length.", reason="size")
    length = _length(request)
    if length > limit:
        raise Refusal(
            413,
            "too_large",
            f"The body has {length} bytes; at most {limit} are taken. Send a reference to "
            "what is larger.",
            reason="size",
        )
    if meta.get("HTTP_CONTENT_ENCODING", "identity") != "identity":
        raise Refusal(415, "unsupported_media_type", "A job is sent without a Content-Encoding.")
    media = meta.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if media not in _TYPES and not media.endswith("+json"):
        raise Refusal(415, "unsupported_media_type", "A job is sent as application/json.")
    try:
        key = key_of(meta)
    except BadKey as error:
        raise Refusal(400, "bad_idempotency_key", f"{error}.", reason="key") from None
    _check_rate(principal)
    try:
        tools.saturation().admit()
    except Full as error:
        raise _full(error) from None
    return key


def _full(error: Full) -> Refusal:
    return Refusal(
        429,
        "saturated",
        str(error),
        reason="saturated",
        retry_after_s=retry_after(error.retry_after_s),
    )


def _check_rate(principal: Principal) -> None:
    """A job counts as one record of the key's rate."""
    limit = key_limits().of(principal) if principal.rate_per_s is not None else None
    if limit is not None and (due_s := limit.charge(1)):
        raise Refusal(
            429,
            "rate_limited",
            f"The API key has used up its rate: it may send {limit.rate_per_s:,} a second, at most "
            f"{limit.burst:,} at once.",
            reason="share",
            retry_after_s=max(1, int(due_s + 1)),
        )


def _submit(
    request: HttpRequest, principal: Principal, correlation_id: str, key: str | None
) -> HttpResponse:
    jobs = settings.COLLECTOR.jobs
    raw = _read(request)
    try:
        body = decode_json(raw, max_depth=jobs.max_depth)
    except BadJson as error:
        raise Refusal(400, "bad_json", str(error), reason="payload") from None
    now = datetime.now(UTC)
    try:
        wanted = read_submission(body, principal=principal, now=now, policy=policy())
    except Invalid as error:
        earlier = _used_before(key, raw, body, principal)
        if earlier is not None:
            return earlier
        raise invalid(error) from None
    except (TypeBroken, SchemaError):
        raise Refusal(
            503,
            "type_broken",
            "This job type cannot be used as it is configured: an operator must mend it.",
            reason="type",
            retry_after_s=60,
        ) from None
    later = _is_for_later(wanted, now)
    if later:
        try:
            tools.saturation().admit_later()
        except Full as error:
            earlier = _used_before(key, raw, body, principal)
            if earlier is not None:
                return earlier
            raise _full(error) from None
    job_id = new_job_id()
    answer = acceptance(
        job_id,
        wanted,
        correlation_id,
        # A client's mark is no reason to refuse work; that it was not taken is said.
        replaced=request.META.get("HTTP_X_CORRELATION_ID", correlation_id) != correlation_id,
    )
    draft = _draft(request, principal, wanted, job_id, correlation_id, key, raw, answer)
    (repeated,) = tools.the_store().submit([draft])
    if repeated is not None:
        return _repeated(repeated, digest=keyed.digest_of(raw))
    tools.saturation().taken(later=later)
    metrics.count_submitted(wanted.type.name)
    requestlog.log_accepted(
        request_id=draft.request_id,
        job_id=str(job_id),
        correlation_id=correlation_id,
        type=wanted.type.name,
        tenant=wanted.tenant,
        bytes=len(raw),
    )
    return HttpResponse(
        answer,
        status=202,
        content_type="application/json",
        headers={"Location": f"/jobs/{job_id}"},
    )


def _is_for_later(wanted: Wanted, now: datetime) -> bool:
    return wanted.run_at is not None and (wanted.run_at - now).total_seconds() > LATER_S


def _read(request: HttpRequest) -> bytes:
    length = _length(request)
    raw = request.META["wsgi.input"].read(length)
    if len(raw) < length:
        raise Refusal(400, "bad_request", "The body ended before its Content-Length.")
    if not raw:
        raise Refusal(400, "bad_json", "The body is empty; it must be a job.", reason="payload")
    return bytes(raw)


def _length(request: HttpRequest) -> int:
    # The server has refused what is no number.
    text = request.META.get("CONTENT_LENGTH") or "0"
    return int(text) if text.isascii() and text.isdigit() else 0


def _draft(
    request: HttpRequest,
    principal: Principal,
    wanted: Wanted,
    job_id: UUID,
    correlation_id: str,
    key: str | None,
    raw: bytes,
    answer: bytes,
) -> Draft:
    sent: str = request.META.get("HTTP_TRACEPARENT", "")
    traceparent = sent if len(sent) == _TRACEPARENT_CHARS and sent.isascii() else ""
    return Draft(
        id=job_id,
        type_id=wanted.type.id,
        payload=wanted.payload,
        tenant=wanted.tenant,
        priority=wanted.priority,
        run_at=wanted.run_at,
        deadline_at=wanted.deadline_at,
        deadline_s=wanted.deadline_s,
        correlation_id=correlation_id,
        service=wanted.service,
        submitted_by="" if principal.key_id is None else f"API key {principal.key_id}",
        request_id=request_id_of(request),
        traceparent=submitted_span(job_id, wanted.type.name, traceparent),
        webhook_url=wanted.webhook_url,
        keyed=None
        if key is None
        else KeyedBy(
            key=key,
            digest=keyed.digest_of(raw),
            status=202,
            response=answer.decode(),
            keep_s=settings.COLLECTOR.retention.idempotency_hours * 3600.0,
        ),
    )


# --- what was sent before -------------------------------------------------------------------------


def _used_before(
    key: str | None, raw: bytes, body: Any, principal: Principal
) -> HttpResponse | None:
    """The answer to a repeat that could not be taken now: its first time was."""
    if key is None:
        return None
    tenant = body.get("tenant") if isinstance(body, dict) else None
    if not (isinstance(tenant, str) and principal.any_tenant):
        tenant = principal.tenant
    earlier = keyed.used_before(key, tenant)
    return None if earlier is None else _repeated(earlier, digest=keyed.digest_of(raw))


def _repeated(repeated: Repeated, *, digest: str) -> HttpResponse:
    if repeated.digest != digest:
        raise Refusal(
            422,
            "idempotency_mismatch",
            "The Idempotency-Key was used for a job with another body: a new job needs a new key.",
            reason="key",
        )
    return keyed.replay(repeated)
