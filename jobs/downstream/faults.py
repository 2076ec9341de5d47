"""How a call of a downstream service fails, as whoever asked for it hears it, and within this room.

Heard outside: `Delayed` (it was not called at all), `FailedCall` (it may work later), `RefusedCall`
(it never will), and `jobs.execution.interruption.Interrupted`.  The others end on the way.
"""

from __future__ import annotations

from pipeline.errors import PermanentError, RetryableError


class Delayed(Exception):
    """The service was not called, and may be in `delay_s` seconds: no attempt was spent."""

    def __init__(self, delay_s: float, why: str) -> None:
        super().__init__(why)
        self.delay_s = delay_s
        self.why = why


class FailedCall(RetryableError):
    """The call may work later.  `status` is the answer's; None when there was none."""

    def __init__(
        self, message: str, *, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.status = status


class RefusedCall(PermanentError):
    """The same call will never work.  `status` is the answer's; None when it was not made."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class OutOfTimeError(Exception):
    """The call's time is up."""


class CutError(Exception):
    """The call was cut from outside."""


class DeniedError(Exception):
    """An address may not be connected to."""


class NotSentError(Exception):
    """A kept connection was found closed before a byte of the request was sent."""
