"""`/ping/<secret>` and what may follow it: start, fail, or an exit code.

Runs on request threads, answers from memory: which targets there are is known without a database.
A ping is in the log's files before it is answered.  The secret appears in no log line: an answer
that refuses is marked as logged, as Django would log its path.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from control.web.permits import permits
from control.web.problem import problem
from control.web.requestid import request_id_of
from healthmon.heartbeats import metrics
from healthmon.heartbeats.index import IndexUnknown, Known, index
from healthmon.heartbeats.pings import (
    FAIL,
    MAX_BODY_BYTES,
    MAX_REMOTE_CHARS,
    PING,
    START,
    SUCCESS,
    SentPing,
    kind_of_exit,
    record_of,
    text_of,
)
from healthmon.heartbeats.secret import digest_of
from pipeline.errors import Draining, Refused, Saturated
from pipeline.intake.ratelimit import Buckets
from sinks import service

logger = logging.getLogger(__name__)

# A target's own pings; and, from one address, those of secrets that nobody knows.
PINGS_PER_S, PINGS_BURST = 5.0, 60.0
GUESSES_PER_S, GUESSES_BURST = 2.0, 30.0
METHODS = ("GET", "HEAD", "POST")
_TENANT = "default"


class Limits:
    """How often is too often; `_lock` guards the making anew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        with self._lock:
            self.pings: Buckets[int] = Buckets(
                rate_per_s=PINGS_PER_S, burst=PINGS_BURST, monotonic=time.monotonic
            )
            self.guesses: Buckets[str] = Buckets(
                rate_per_s=GUESSES_PER_S, burst=GUESSES_BURST, monotonic=time.monotonic
            )


limits = Limits()


@csrf_exempt
def ping(request: HttpRequest, rest: str) -> HttpResponse:
    """Take a ping in.  Every path below /ping/ comes here, for the sake of what gets logged."""
    secret, _, action = rest.rstrip("/").partition("/")
    try:
        answer = _answered(request, secret, action)
    except Exception:
        logger.exception("a ping could not be taken in")
        answer = _refused(request, 500, "internal_error", "the ping could not be taken in")
    if answer.status_code >= 400:
        answer._has_been_logged = True  # type: ignore[attr-defined]
    metrics.pings().labels(str(answer.status_code)).inc()
    return answer


def _answered(request: HttpRequest, secret: str, action: str) -> HttpResponse:
    if request.method not in METHODS:
        allowed = ", ".join(METHODS)
        return _refused(
            request, 405, "method_not_allowed", f"a ping is sent by {allowed}", Allow=allowed
        )
    remote = str(request.META.get("REMOTE_ADDR", ""))[:MAX_REMOTE_CHARS]
    said = _said(action)
    try:
        digest = digest_of(secret) if len(secret) == 36 and said is not None else ""
    except ValueError:
        digest = ""
    try:
        target = index().of_digest(digest) if digest else None
        if target is None:
            # Before the database is asked: whoever guesses does not get to keep it busy.
            wait_s = limits.guesses.take(remote)
            if wait_s:
                return _later(
                    request, 429, "too_many_requests", "too many unknown addresses", wait_s
                )
            target = index().look_for(digest) if digest else None
    except IndexUnknown:
        return _later(request, 503, "unavailable", "the ping addresses are not known now", 5.0)
    if target is None or said is None:
        return _refused(request, 404, "not_found", "there is no such ping address")
    wait_s = limits.pings.take(target.id)
    if wait_s:
        return _later(request, 429, "too_many_requests", "this target is pinged too often", wait_s)
    return _taken_in(request, target, said, remote)


def _said(action: str) -> tuple[str, int | None] | None:
    """The kind of ping and its exit code; None when the action is none."""
    if action == "":
        return SUCCESS, None
    if action in (START, FAIL):
        return action, None
    if action.isascii() and action.isdecimal() and len(action) <= 3 and int(action) <= 255:
        code = int(action)
        return kind_of_exit(code), code
    return None


def _taken_in(
    request: HttpRequest, target: Known, said: tuple[str, int | None], remote: str
) -> HttpResponse:
    if not permits.try_take():
        return _later(request, 429, "too_many_requests", "all threads are busy", 1.0)
    try:
        sent = SentPing(
            target_id=target.id,
            kind=said[0],
            exit_code=said[1],
            remote=remote,
            body=text_of(_body(request.META)),
        )
        record = record_of(sent, target=target.name, at_us=time.time_ns() // 1000)
        try:
            engine = service.current().engine
        except RuntimeError:
            raise Draining("this process has no running pipelines", retry_after_s=2.0) from None
        engine.offer(
            type=PING,
            tenant=_TENANT,
            records=[record],
            request_id=request_id_of(request),
            durable=True,
            sheddable=False,
        )
    except Refused as error:
        status = 429 if isinstance(error, Saturated) else 503
        return _later(request, status, error.reason, str(error), error.retry_after_s)
    except OSError:
        return _refused(request, 400, "bad_request", "the body could not be read")
    finally:
        permits.give_back()
    return HttpResponse(b"OK", content_type="text/plain")


def _body(meta: dict[str, Any]) -> bytes:
    """The first bytes of what was sent; the rest is not read."""
    if meta.get("REQUEST_METHOD") != "POST":
        return b""
    most = MAX_BODY_BYTES
    if "chunked" not in meta.get("HTTP_TRANSFER_ENCODING", "").lower():
        try:
            most = min(most, max(0, int(meta.get("CONTENT_LENGTH") or 0)))
        except ValueError:
            most = 0
    pieces: list[bytes] = []
    while most > 0:
        piece: bytes = meta["wsgi.input"].read(most)
        if not piece:
            break
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


def _later(
    request: HttpRequest, status: int, code: str, detail: str, wait_s: float
) -> HttpResponse:
    spread = random.uniform(1.0, 1.2)  # noqa: S311 - jitter, not a secret
    seconds = max(1, math.ceil(min(wait_s, 300.0) * spread))
    return _refused(request, status, code, detail, Retry_After=str(seconds))


def _refused(
    request: HttpRequest, status: int, code: str, detail: str, **headers: str
) -> HttpResponse:
    titles = {
        400: "Bad Request",
        404: "Not Found",
        405: "Method Not Allowed",
        429: "Too Many Requests",
        500: "Internal Server Error",
        503: "Service Unavailable",
    }
    return problem(
        status,
        title=titles[status],
        detail=detail,
        code=code,
        request_id=request_id_of(request),
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )
