"""What the server itself answers, where no application ran: bytes that are no request, timeouts.

The same problem documents as everywhere else, and a log line that clients cannot multiply. Called
on request threads and on the worker's main thread; `_lock` guards the count of unsaid refusals.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from gunicorn.http import errors

logger = logging.getLogger(__name__)

LOG_INTERVAL_S = 10.0
MAX_REASON_CHARS = 200
MAX_REQUEST_LINE_BYTES = 4096

# The first class that fits an error decides; what is not here is a failure of ours.
_STATUSES: tuple[tuple[type[BaseException], int, str], ...] = (
    (errors.InvalidResponseHeader, 500, ""),
    (errors.InvalidResponseHeaderName, 500, ""),
    (errors.ConfigurationProblem, 500, ""),
    (errors.LimitRequestLine, 414, "The request line is longer than this server reads."),
    (errors.LimitRequestHeaders, 431, "The request's headers are larger than this server reads."),
    (errors.UnsupportedTransferCoding, 501, "This transfer coding is not supported; use chunked."),
    (errors.ExpectationFailed, 417, "This expectation cannot be met."),
    (errors.ForbiddenProxyRequest, 403, "This peer may not speak the PROXY protocol here."),
    (ssl.SSLError, 403, "The TLS connection failed."),
    (errors.InvalidRequestLine, 400, "The request line is malformed."),
    (errors.InvalidRequestMethod, 400, "The request's method is malformed."),
    (errors.InvalidHTTPVersion, 400, "The request's HTTP version is not supported."),
    (
        errors.InvalidHeader,
        400,
        "A header is malformed, or contradicts another one (such as a second Content-Length).",
    ),
    (errors.InvalidHeaderName, 400, "A header's name is malformed."),
    (errors.ParseException, 400, "The request is not well-formed HTTP."),
)
_CODES = {
    400: "bad_request",
    403: "forbidden",
    408: "request_timeout",
    414: "uri_too_long",
    417: "expectation_failed",
    431: "headers_too_large",
    500: "internal_error",
    501: "not_implemented",
}
_FAILED = "The server failed to answer; the request id names the entry in the server's log."


class Refusals:
    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._next_line = 0.0
        self._unsaid = 0

    def answer_to(self, error: BaseException, request: Any, peer: Any) -> bytes:
        """The whole answer to a request that gunicorn could not parse or the application broke."""
        from control.web.requestid import take_request_id

        status, detail = _status_of(error)
        headers = dict(getattr(request, "headers", None) or ())
        request_id = take_request_id(headers.get("X-REQUEST-ID"))
        if status >= 500 and status != 501:
            logger.error(
                "unexpected error while answering a request",
                exc_info=error,
                extra={"request_id": request_id},
            )
            return _answer(status, _FAILED, request_id)
        reason = inert(str(error), MAX_REASON_CHARS)
        self._say(status, reason, request_id, peer)
        return _answer(status, f"{detail} ({reason})", request_id)

    def too_large(self, head: bytes | bytearray, peer: Any) -> bytes:
        """The answer to a head without an end."""
        if b"\r\n" in head[: MAX_REQUEST_LINE_BYTES + 2]:
            error: BaseException = errors.LimitRequestHeaders("the head does not end")
        else:
            error = errors.LimitRequestLine(len(head), MAX_REQUEST_LINE_BYTES)
        return self.answer_to(error, None, peer)

    def timeout(self) -> bytes:
        from control.web.requestid import make_request_id

        detail = "The request's head did not arrive before the read deadline."
        return _answer(408, detail, make_request_id())

    def _say(self, status: int, reason: str, request_id: str, peer: Any) -> None:
        with self._lock:
            if self._monotonic() < self._next_line:
                self._unsaid += 1
                return
            self._next_line = self._monotonic() + LOG_INTERVAL_S
            unsaid, self._unsaid = self._unsaid, 0
        logger.warning(
            "request refused: it is not well-formed",
            extra={
                "status": status,
                "reason": reason,
                "request_id": request_id,
                "peer": peer[0] if isinstance(peer, tuple) and peer else "",
                "more_since_last_line": unsaid,
            },
        )


def inert(text: str, limit: int) -> str:
    """Foreign text that drives no terminal and fills no line."""
    shown = "".join(
        letter if letter.isascii() and letter.isprintable() else ascii(letter)[1:-1]
        for letter in text[: limit + 1]
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _status_of(error: BaseException) -> tuple[int, str]:
    for kind, status, detail in _STATUSES:
        if isinstance(error, kind):
            return status, detail
    return 500, ""


def _answer(status: int, detail: str, request_id: str) -> bytes:
    # Imported late: gunicorn's parent imports this without Django.
    from control.web.problem import problem, title_of
    from control.web.requestid import HEADER

    response = problem(
        status,
        title=title_of(status),
        detail=detail,
        code=_CODES.get(status, "error"),
        request_id=request_id,
    )
    head = (
        f"HTTP/1.1 {status} {title_of(status)}\r\n"
        "Connection: close\r\n"
        f"Content-Type: {response.headers['Content-Type']}\r\n"
        f"Content-Length: {len(response.content)}\r\n"
        f"{HEADER}: {request_id}\r\n\r\n"
    )
    return head.encode("ascii") + response.content
