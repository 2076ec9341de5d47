"""One request on its way in: who sends it, whether there is room, what it says, what becomes of it.

Everything that can refuse a request without its body does so first, so that a refusal stays
cheap under load.  Runs on the request's thread.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from django.http import HttpRequest, HttpResponse

from control.auth.keys import Principal
from control.auth.limits import KeyLimit, key_limits
from control.web.access import authorize
from control.web.permits import permits
from control.web.requestid import request_id_of
from ingest import metrics
from ingest.api import answers, keyed, ratelimit, requestlog
from ingest.api.acks import MEMORY, STORED, choose_ack, logs_to, weakest
from ingest.api.door import Door, door
from ingest.api.keyed import Keyed
from ingest.api.offer import Offer
from ingest.api.patience import Patience
from ingest.wire.body import encoding_of, length_of, read_body
from ingest.wire.decode import Decoded, decode
from ingest.wire.errors import RequestError
from ingest.wire.formats import format_of
from ingest.wire.kinds import Kind
from pipeline.engine import Engine
from pipeline.errors import Draining, Refused, Saturated
from pipeline.receipt import Receipt
from sinks import service

_TRACEPARENT_LENGTH = 55


def take_in(request: HttpRequest, kind: Kind) -> HttpResponse:
    """Answer a POST of records."""
    came = time.perf_counter()
    response = _answer(request, kind)
    metrics.observe_request(response.status_code, time.perf_counter() - came)
    return response


def _answer(request: HttpRequest, kind: Kind) -> HttpResponse:
    request_id = request_id_of(request)
    limit: KeyLimit | None = None
    try:
        principal = authorize(request, kind.scope)
        if isinstance(principal, HttpResponse):
            code, detail = answers.said_by(principal)
            _note_refusal(request, request_id, principal.status_code, code, detail)
            return principal
        if principal.rate_per_s is not None:
            limit = key_limits().of(principal)
        return _admit(request, kind, principal, request_id, limit)
    except RequestError as error:
        _note_refusal(request, request_id, error.status, error.code, error.detail)
        return answers.refused(error, request_id=request_id)
    except Refused as error:
        status = answers.status_of(error)
        _note_refusal(request, request_id, status, error.reason, str(error))
        response = answers.turned_away(error, request_id=request_id)
        if status == 429:
            ratelimit.tell_refused(response, limit, error)
        return response


def _admit(
    request: HttpRequest,
    kind: Kind,
    principal: Principal,
    request_id: str,
    limit: KeyLimit | None,
) -> HttpResponse:
    meta, here = request.META, door()
    engine = _engine()
    ack = choose_ack(
        meta.get("QUERY_STRING", ""),
        minimum=principal.min_ack,
        default=here.settings.default_ack,
        logs_to=logs_to(engine),
    )
    key = keyed.key_of(meta)
    length = length_of(meta, max_body_bytes=here.settings.max_body_bytes)
    if length == 0:
        raise answers.empty_body()
    format = format_of(meta.get("CONTENT_TYPE", ""), text=kind.text)
    encoding = encoding_of(meta)
    if limit is not None and (due_s := limit.due_s()):
        raise ratelimit.rate_limited(limit, due_s)
    wait_s = here.settings.admission_wait_s
    patience = Patience(engine=engine, type=kind.type, wait_s=wait_s, places=here.places)
    if not wait_s:
        _let_in(patience.refusal(principal.tenant, length or 0))
    if not permits.try_take():
        raise Saturated("all threads that serve ingest are busy")
    try:
        # Only a thread that may serve ingest may wait for room either.
        if wait_s:
            _let_in(patience.refusal(principal.tenant, length or 0))
        with here.gate.reserve(length or 0) as reservation:
            body = read_body(
                meta,
                length=length,
                encoding=encoding,
                reservation=reservation,
                max_body_bytes=here.settings.max_body_bytes,
                max_inflated_bytes=here.settings.max_inflated_bytes,
            )
            decoded = decode(
                body,
                format=format,
                kind=kind,
                tenant=principal.tenant,
                any_tenant=principal.any_tenant,
                arrival_us=time.time_ns() // 1000,
                limits=here.limits,
            )
            nbytes = len(body)
            digest = keyed.digest_of(body, format) if key is not None else ""
            del body
            for code, count in decoded.codes.items():
                metrics.count_error(code, count)
            if not decoded.records:
                raise answers.nothing_valid(decoded)
            claimed = None
            if key is not None:
                taken = _claim(request, engine, principal, key, digest, decoded, request_id)
                if isinstance(taken, HttpResponse):
                    return taken
                claimed = taken
            offer = Offer(
                engine=engine,
                kind=kind,
                request_id=request_id,
                traceparent=_traceparent(meta),
                durable=ack != MEMORY or claimed is not None,
                claimed=claimed,
                limit=limit,
                patience=patience,
                nbytes=nbytes,
            )
            receipts = offer.make(decoded)
        answer = None
        try:
            unstored = 0
            if ack == STORED:
                ack, unstored = _await_stored(here, receipts, elsewhere=offer.kept_before)
            elif offer.durable:
                ack = weakest(receipts)
            accepted, shed = offer.kept_before, 0
            for receipt in receipts:
                accepted += receipt.count
                shed += receipt.shed
            answer = answers.acceptance(
                accepted=accepted,
                decoded=decoded,
                ack=ack,
                request_id=request_id,
                unstored=unstored,
                shed=shed,
            )
        finally:
            if claimed is not None:
                claimed.done(engine, offer.kept, answer)
    finally:
        permits.give_back()
    requestlog.log_accepted(
        request.path,
        request_id=request_id,
        tenant=principal.tenant,
        accepted=accepted,
        rejected=decoded.rejected,
        nbytes=nbytes,
    )
    response = answers.accepted(answer)
    remaining = engine.remaining(kind.type, principal.tenant)
    if limit is not None or remaining is not None:
        ratelimit.tell_accepted(response, limit, remaining)
    return response


def _let_in(refusal: Refused | None) -> None:
    """Raise it, without a frame of the request that would hold it: the two would hold each other,
    and under overload leave their memory to the collector of cycles."""
    try:
        if refusal is not None:
            raise refusal
    finally:
        del refusal


def _engine() -> Engine:
    try:
        return service.current().engine
    except RuntimeError:
        raise Draining("this process has no running pipelines", retry_after_s=2.0) from None


def _claim(
    request: HttpRequest,
    engine: Engine,
    principal: Principal,
    key: str,
    digest: str,
    decoded: Decoded,
    request_id: str,
) -> Keyed | HttpResponse:
    """The claim of the request's key, with the answer that is foreseen."""
    foreseen = answers.acceptance(
        accepted=sum(map(len, decoded.records.values())),
        decoded=decoded,
        ack=logs_to(engine),
        request_id=request_id,
    )
    return keyed.claim(
        key,
        tenant=principal.tenant,
        path=request.path,
        digest=digest,
        log_id=engine.log_id,
        parts=list(decoded.records),
        foreseen=foreseen,
    )


def _await_stored(here: Door, receipts: Sequence[Receipt], *, elsewhere: int) -> tuple[str, int]:
    """The acknowledgement that is true, and how many records are known to be stored nowhere.

    A receipt without a required sink to wait for is done at once, and not therefore stored.
    Records `elsewhere`, in an adopted log, have none to wait for.
    """
    settled = here.waiters.wait(receipts, here.settings.ack_timeout_s)
    unstored = sum(receipt.unstored for receipt in receipts)
    stored = settled and not unstored and not elsewhere
    return (STORED if stored else weakest(receipts)), unstored


def _traceparent(meta: dict[str, Any]) -> str:
    sent: str = meta.get("HTTP_TRACEPARENT", "")
    return sent if len(sent) == _TRACEPARENT_LENGTH and sent.isascii() else ""


def _note_refusal(
    request: HttpRequest, request_id: str, status: int, code: str, detail: str
) -> None:
    metrics.count_error(code)
    requestlog.log_refused(
        request.path, request_id=request_id, status=status, code=code, detail=detail
    )
