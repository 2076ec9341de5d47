"""One log line for a submission, in measure: under load neither sort floods the log.

Called on request threads; the sampler has a lock of its own.
"""

from __future__ import annotations

import logging

from control.web.sampling import Sampler

logger = logging.getLogger("jobs.requests")
_sampler = Sampler()


def log_accepted(**fields: object) -> None:
    _log(logging.INFO, "job accepted", fields)


def log_refused(**fields: object) -> None:
    _log(logging.WARNING, "job refused", fields)


def _log(level: int, words: str, fields: dict[str, object]) -> None:
    if not logger.isEnabledFor(level):
        return
    everything = logger.isEnabledFor(logging.DEBUG)
    left_out = 0 if everything else _sampler.admit((level, fields.get("code")))
    if left_out >= 0:
        logger.log(level, words, extra={**fields, "left_out": left_out})
