"""Liveness and readiness as views: `/healthz`, `/readyz`, and the one behind `GET /health`.

Run on request threads that ingest never takes. They do no I/O of their own; the checks behind the
readiness port answer from memory.
"""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec
from django.http import HttpRequest, HttpResponse

from control.ports.readiness import readiness

_STARTED = time.monotonic()
_encode = msgspec.json.Encoder().encode


def healthz(request: HttpRequest) -> HttpResponse:
    """The process is alive and has a thread to say so."""
    return _answer({"status": "ok", "pid": os.getpid(), "uptime_s": _uptime()}, 200)


def readyz(request: HttpRequest) -> HttpResponse:
    """Whether to send traffic here: 503 with each cause when not."""
    body, status = _readiness()
    return _answer(body, status)


def health(request: HttpRequest) -> HttpResponse:
    """Both in one document, for `GET /health`."""
    body, status = _readiness()
    alive = {"status": "ok", "pid": os.getpid(), "uptime_s": _uptime()}
    return _answer({"status": body["status"], "liveness": alive, "readiness": body}, status)


def _readiness() -> tuple[dict[str, Any], int]:
    checks = readiness()
    causes = [{"check": name, "cause": cause} for name, cause in checks.items() if cause]
    status = "unavailable" if causes else "ok"
    return {"status": status, "checks": sorted(checks), "causes": causes}, 503 if causes else 200


def _uptime() -> float:
    return round(time.monotonic() - _STARTED, 3)


def _answer(body: dict[str, Any], status: int) -> HttpResponse:
    response = HttpResponse(_encode(body), status=status, content_type="application/json")
    response["Cache-Control"] = "no-store"
    if status == 503:
        response["Retry-After"] = "2"
    return response
