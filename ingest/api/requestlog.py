"""One log line for a request, in measure: under load neither successes nor refusals flood the log.

Each path and status class may write so many lines a second; the next line that is written says
how many were left out.  Request threads call it; `_lock` guards the counts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger("ingest.requests")

LINES_A_SECOND = 5


class Sampler:
    """Which of many like events may be told, and how many were not since the last one told."""

    def __init__(
        self, *, per_second: int = LINES_A_SECOND, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._seconds: dict[object, tuple[int, int]] = {}
        self._left_out: dict[object, int] = {}

    def admit(self, key: object) -> int:
        """How many were left out before this one, or -1 if this one is to be left out."""
        second = int(self._monotonic())
        with self._lock:
            at, told = self._seconds.get(key, (second, 0))
            if at != second:
                told = 0
            if told >= self._per_second:
                self._left_out[key] = self._left_out.get(key, 0) + 1
                return -1
            self._seconds[key] = (second, told + 1)
            return self._left_out.pop(key, 0)


_sampler = Sampler()


def log_accepted(
    path: str, *, request_id: str, tenant: str, accepted: int, rejected: int, nbytes: int
) -> None:
    level = logging.WARNING if rejected else logging.INFO
    if not logger.isEnabledFor(level):
        return
    left_out = 0 if logger.isEnabledFor(logging.DEBUG) else _sampler.admit((path, level))
    if left_out < 0:
        return
    logger.log(
        level,
        "request accepted",
        extra={
            "path": path,
            "status": 202,
            "request_id": request_id,
            "tenant": tenant,
            "accepted": accepted,
            "rejected": rejected,
            "bytes": nbytes,
            "left_out": left_out,
        },
    )


def log_refused(path: str, *, request_id: str, status: int, code: str, detail: str) -> None:
    left_out = 0 if logger.isEnabledFor(logging.DEBUG) else _sampler.admit((path, status))
    if left_out < 0:
        return
    logger.warning(
        "request refused",
        extra={
            "path": path,
            "status": status,
            "request_id": request_id,
            "code": code,
            "detail": detail,
            "left_out": left_out,
        },
    )
