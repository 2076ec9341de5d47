"""The answers of ingest: 202 with what was taken, or a problem document that says what to do."""

from __future__ import annotations

import math

import msgspec
from django.http import HttpResponse

from control.web.problem import problem, title_of
from control.web.retryafter import MAX_RETRY_AFTER_S, retry_after
from ingest.api.keyed import KeyPending, KeysAway
from ingest.api.ratelimit import RateLimited
from ingest.wire.decode import Decoded
from ingest.wire.errors import Rejection, RequestError
from pipeline.errors import Draining, LogUnavailable, NoSink, Refused, TooLarge


class Accepted(msgspec.Struct, gc=False, omit_defaults=True):
    """The body of a 202."""

    accepted: int
    rejected: int
    errors: list[Rejection]
    ack: str
    request_id: str
    errors_omitted: int = 0
    unstored: int = 0
    shed: int = 0


class _Said(msgspec.Struct, gc=False):
    """What the log and the counter take from a problem document."""

    code: str
    detail: str


_encode = msgspec.json.Encoder().encode
_decode_said = msgspec.json.Decoder(_Said).decode


def acceptance(
    *,
    accepted: int,
    decoded: Decoded,
    ack: str,
    request_id: str,
    unstored: int = 0,
    shed: int = 0,
) -> bytes:
    """What a 202 says. `unstored` of the accepted records are known to be in no required sink.

    `shed` valid records were not accepted: their level is the lowest, and the sinks nearly full.
    """
    return _encode(
        Accepted(
            accepted,
            decoded.rejected,
            decoded.rejections,
            ack,
            request_id,
            decoded.rejected - len(decoded.rejections),
            unstored,
            shed,
        )
    )


def accepted(body: bytes) -> HttpResponse:
    return HttpResponse(body, status=202, content_type="application/json")


def empty_body() -> RequestError:
    return RequestError(400, "empty_body", "the body holds no record")


def nothing_valid(decoded: Decoded) -> RequestError:
    """400: every record was refused, or there was none."""
    if not decoded.rejected:
        return empty_body()
    first = decoded.rejections[0].detail
    return RequestError(
        400,
        "nothing_valid",
        f"the record is not valid: {first}"
        if decoded.rejected == 1
        else f"none of the {decoded.rejected} records is valid; the first: {first}",
        accepted=0,
        rejected=decoded.rejected,
        errors=decoded.rejections,
        errors_omitted=decoded.rejected - len(decoded.rejections),
    )


def refused(error: RequestError, *, request_id: str) -> HttpResponse:
    return problem(
        error.status,
        title=title_of(error.status),
        detail=error.detail,
        code=error.code,
        request_id=request_id,
        **error.extra,
    )


def said_by(response: HttpResponse) -> tuple[str, str]:
    """The code and detail of a problem that another room answered with.

    The codes are the ones of `control.web`, a handful; no client can make one.
    """
    said = _decode_said(response.content)
    return said.code, said.detail


def status_of(error: Refused) -> int:
    if isinstance(error, TooLarge):
        return 413
    if isinstance(error, KeyPending):
        return 409
    return 503 if isinstance(error, Draining | NoSink | LogUnavailable | KeysAway) else 429


def turned_away(error: Refused, *, request_id: str) -> HttpResponse:
    """409, 429 or 503 with the time to come back, or 413 when that would be no use."""
    status = status_of(error)
    if isinstance(error, TooLarge):
        return problem(
            status,
            title=title_of(status),
            detail=str(error),
            code=error.reason,
            request_id=request_id,
            limit=error.limit,
        )
    return problem(
        status,
        title=title_of(status),
        detail=str(error),
        code=error.reason,
        request_id=request_id,
        headers={"Retry-After": str(_come_back(error))},
    )


def _come_back(error: Refused) -> int:
    """`Retry-After` of a refusal: an API key's own time is known, and is nobody else's."""
    if isinstance(error, RateLimited):
        return min(max(1, math.ceil(error.retry_after_s)), MAX_RETRY_AFTER_S)
    return retry_after(error.retry_after_s)
