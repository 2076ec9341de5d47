"""Each request's id: taken from `X-Request-ID` when harmless, else made; echoed in the answer.

The current id is also a context variable, so that log lines written on the request's thread
carry it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar

from django.http import HttpRequest, HttpResponseBase

HEADER = "X-Request-ID"
MAX_LENGTH = 128

current_request_id: ContextVar[str] = ContextVar("collector_request_id", default="")


def make_request_id() -> str:
    return os.urandom(16).hex()


def take_request_id(sent: str | None) -> str:
    """The sent id if it is 1 to 128 visible ASCII characters, else a new one."""
    if (
        sent
        and len(sent) <= MAX_LENGTH
        and sent.isascii()
        and sent.isprintable()
        and " " not in sent
    ):
        return sent
    return make_request_id()


def request_id_of(request: HttpRequest) -> str:
    """The request's id; made now where no middleware ran before."""
    known = getattr(request, "request_id", "")
    if known:
        return str(known)
    made = take_request_id(request.META.get("HTTP_X_REQUEST_ID"))
    request.request_id = made  # type: ignore[attr-defined]
    return made


class RequestIdMiddleware:
    """Sets `request.request_id` and answers with the same id. Keep it outermost."""

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request_id = request_id_of(request)
        token = current_request_id.set(request_id)
        try:
            response = self.get_response(request)
        finally:
            current_request_id.reset(token)
        response.headers[HEADER] = request_id
        return response
