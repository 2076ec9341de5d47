"""The errors of the engine: what a sink may raise, and why an offer may be refused."""

from __future__ import annotations

from collections.abc import Callable


class SinkError(Exception):
    """Base of what a sink raises from `open` or `write`."""


class RetryableError(SinkError):
    """The write may succeed later.  `retry_after_s` (seconds) is the sink's own word on when."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        # A number from here on: its author sees the mistake, not the worker that needs it.
        self.retry_after_s = None if retry_after_s is None else float(retry_after_s)


class PermanentError(SinkError):
    """At least one record of the batch can never be stored; none of the batch was.

    The batch is halved until those records stand alone, and they become dead letters; the others
    are stored.
    """


class PartialFailure(SinkError):
    """Some records can never be stored; all others of the batch are.

    `failures` maps an index in `batch.records` to the reason; `already_stored` of the others were
    there before.
    """

    def __init__(self, failures: dict[int, str], *, already_stored: int = 0) -> None:
        super().__init__(f"{len(failures)} records refused by the sink")
        if not all(type(i) is int and isinstance(why, str) for i, why in failures.items()):
            raise TypeError("PartialFailure takes a dict of record indexes (int) to reasons (str)")
        self.failures = failures
        self.already_stored = already_stored


class SinkFault(SinkError):
    """The sink itself is at fault (no such table, no permission): no record is, none is dropped."""


class Refused(Exception):
    """An offer was not accepted; nothing of it is held.

    `reason` is one word for metrics; `retry_after_s` is when to come back (seconds).  What says
    that coming back is of no use is a `TooLarge`.
    """

    reason = "refused"

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Saturated(Refused):
    """There is no room now: come back after `retry_after_s`.

    Whoever waits for room instead says so by `taken_back()`: others need not come behind it.
    """

    reason = "saturated"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float = 1.0,
        taken_back: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.taken_back = taken_back


class Draining(Refused):
    """The engine is stopping and takes nothing new."""

    reason = "draining"


class NoSink(Refused):
    """No sink is configured, so that an acceptance would be a promise nobody keeps."""

    reason = "no_sink"


class TooLarge(Refused):
    """The request could never fit, however long one waits; `limit` names what it exceeds."""

    reason = "too_large"

    def __init__(self, message: str, *, limit: str) -> None:
        super().__init__(message)
        self.limit = limit


class LogUnavailable(Refused):
    """The log cannot take it now, as its disk is full or failing: nothing of the offer is kept."""

    reason = "log_unavailable"
