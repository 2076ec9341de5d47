"""Errors as `application/problem+json` (RFC 9457), for plain views and for DRF alike.

`problem()` is on the path of every refused request and does one encode and no negotiation.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from django.core.exceptions import (
    BadRequest,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.http import Http404, HttpRequest, HttpResponse
from django.http.multipartparser import MultiPartParserError
from django.shortcuts import render
from rest_framework import exceptions
from rest_framework.views import set_rollback

from control.web.requestid import request_id_of

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
CHALLENGE = 'Bearer realm="collector"'
_encode = msgspec.json.Encoder(enc_hook=str).encode

_CODES: dict[int, str] = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "too_large",
    415: "unsupported_media_type",
    429: "too_many_requests",
    500: "internal_error",
    503: "unavailable",
}


def problem(
    status: int,
    *,
    title: str,
    detail: str,
    code: str,
    request_id: str,
    headers: Mapping[str, str] | None = None,
    **extra: Any,
) -> HttpResponse:
    """One problem document. `extra` members stand beside the standard ones, never over them."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }
    for name, value in extra.items():
        body.setdefault(name, value)
    return HttpResponse(_encode(body), status=status, content_type=CONTENT_TYPE, headers=headers)


def title_of(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def exception_handler(exc: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """DRF's `EXCEPTION_HANDLER`. An unexpected exception is logged and tells the client nothing."""
    request = context.get("request")
    raw = getattr(request, "_request", request)
    request_id = request_id_of(raw) if raw is not None else ""
    set_rollback()
    if isinstance(exc, exceptions.APIException):
        return _from_api_exception(exc, request_id)
    return from_django_exception(exc, request_id)


def from_django_exception(exc: BaseException, request_id: str) -> HttpResponse:
    if isinstance(exc, Http404):
        return _plain(404, "There is nothing at this address.", request_id)
    if isinstance(exc, PermissionDenied):
        return _plain(403, "This is not allowed.", request_id)
    if isinstance(exc, RequestDataTooBig):
        return _plain(413, "The request body is larger than this address takes.", request_id)
    if isinstance(exc, SuspiciousOperation | BadRequest | MultiPartParserError):
        return _plain(400, "The request is malformed.", request_id)
    logger.error(
        "unexpected error while answering a request",
        exc_info=exc,
        extra={"request_id": request_id},
    )
    return _plain(
        500,
        "The server failed to answer; the request id names the entry in the server's log.",
        request_id,
    )


def _plain(status: int, detail: str, request_id: str) -> HttpResponse:
    return problem(
        status,
        title=title_of(status),
        detail=detail,
        code=_CODES.get(status, "error"),
        request_id=request_id,
    )


def _from_api_exception(exc: exceptions.APIException, request_id: str) -> HttpResponse:
    status = exc.status_code
    headers: dict[str, str] = {}
    extra: dict[str, Any] = {}
    if isinstance(exc, exceptions.NotAuthenticated | exceptions.AuthenticationFailed):
        # DRF makes them 403 where no authentication class names a challenge.
        status = 401
        headers["WWW-Authenticate"] = CHALLENGE
    wait = getattr(exc, "wait", None)
    if wait is not None:
        headers["Retry-After"] = str(max(1, int(wait)))
    if isinstance(exc, exceptions.ValidationError):
        detail = "Some values are not valid; see errors."
        extra["errors"] = exc.detail
        code = "invalid"
    elif isinstance(exc.detail, list | dict):
        detail = title_of(status)
        extra["errors"] = exc.detail
        code = _CODES.get(status, exc.default_code)
    else:
        detail = str(exc.detail)
        code = _CODES.get(status, exc.default_code)
    return problem(
        status,
        title=title_of(status),
        detail=detail,
        code=code,
        request_id=request_id,
        headers=headers,
        **extra,
    )


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _plain(400, "The request is malformed.", request_id_of(request))


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_of_admin(request):
        return _page(request, 403, "This is not allowed.", said_by(exception) or _FORBIDDEN)
    return _plain(403, "This is not allowed.", request_id_of(request))


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_of_admin(request):
        return _page(request, 404, "There is nothing at this address.", said_by(exception) or _GONE)
    return _plain(404, "There is nothing at this address.", request_id_of(request))


# --- in the admin, to people ----------------------------------------------------------------------

_FORBIDDEN = "Your account may not do this; somebody who manages accounts can allow it."
_GONE = (
    "The address is wrong, or what was here is not kept any more: records, jobs and results are "
    "deleted when the days have passed for which they are kept."
)


def said_by(exception: Exception) -> str:
    """What the view said of it; what Django's own resolver says is not for people."""
    said = exception.args[0] if exception.args else ""
    return said if isinstance(said, str) else ""


def is_of_admin(request: HttpRequest) -> bool:
    """Whether a person looks at an address of the admin, by what the browser can read."""
    match = getattr(request, "resolver_match", None)
    of_admin = request.path.startswith("/admin/") or (
        match is not None and "admin" in match.namespaces
    )
    return of_admin and "text/html" in request.META.get("HTTP_ACCEPT", "")


def _page(request: HttpRequest, status: int, title: str, words: str) -> HttpResponse:
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        # The frame of a page says who looks at it.
        return _plain(status, title, request_id_of(request))
    context = {"title": title, "words": words, "request_id": request_id_of(request)}
    return render(request, "admin/control/refused.html", context, status=status)


def server_error(request: HttpRequest) -> HttpResponse:
    return _plain(
        500,
        "The server failed to answer; the request id names the entry in the server's log.",
        request_id_of(request),
    )
