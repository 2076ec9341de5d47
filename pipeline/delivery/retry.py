"""When a failed batch is tried again: a pure decision, from the error and the attempts so far."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import PermanentError, RetryableError, SinkFault

# What a sink may ask for at most: a far server's mistake must not park a batch for a year.
RETRY_AFTER_CAP_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryDecision:
    """Try again in `delay_s` seconds, or give up; `reason` is one word for why.  Never changed."""

    retry: bool
    delay_s: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with full jitter; pure, and safe to share.

    The n-th failure waits a random time between 0 and `min(cap_s, base_s * 2**(n-1))`, and at
    least what the sink itself asked for, up to an hour.  Without `max_attempts` and `max_age_s`
    (seconds since the first attempt) a batch is tried for ever, which is the safe thing for
    required sinks; after a SinkFault it is in any case.  Time while the breaker was not closed
    does not age a batch, and no attempt is spent then: an outage is not the records' fault.
    """

    base_s: float = 0.1
    cap_s: float = 30.0
    max_attempts: int | None = None
    max_age_s: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.base_s <= self.cap_s:
            raise ValueError("retry must satisfy 0 < base_s <= cap_s")
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValueError("retry max_attempts must be at least 1")
        if self.max_age_s is not None and self.max_age_s <= 0:
            raise ValueError("retry max_age_s must be positive")

    def decide(
        self,
        error: BaseException,
        *,
        attempt: int,
        age_s: float,
        jitter: Callable[[], float] = random.random,
    ) -> RetryDecision:
        """What to do after attempt `attempt` (from 1) failed, `age_s` after the first."""
        if isinstance(error, PermanentError):
            return RetryDecision(retry=False, delay_s=0.0, reason="permanent")
        # A sink at fault is no reason to give records up, however long it takes to be repaired.
        gives_up = not isinstance(error, SinkFault)
        if gives_up and self.max_attempts is not None and attempt >= self.max_attempts:
            return RetryDecision(retry=False, delay_s=0.0, reason="attempts")
        delay = jitter() * min(self.cap_s, self.base_s * 2.0 ** min(attempt - 1, 60))
        if isinstance(error, RetryableError) and error.retry_after_s is not None:
            delay = max(delay, min(error.retry_after_s, RETRY_AFTER_CAP_S))
        if gives_up and self.max_age_s is not None and age_s + delay >= self.max_age_s:
            return RetryDecision(retry=False, delay_s=0.0, reason="age")
        return RetryDecision(retry=True, delay_s=delay, reason="retry")
