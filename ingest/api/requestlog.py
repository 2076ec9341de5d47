"""One log line for a request, in measure: under load neither successes nor refusals flood the log.

Each path and status class may write so many lines a second; the next line that is written says
how many were left out.  Called on request threads; the sampler has a lock of its own.
"""

from __future__ import annotations

import logging

from control.web.sampling import Sampler

logger = logging.getLogger("ingest.requests")

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
