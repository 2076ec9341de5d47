"""What a downstream service is spared: a breaker, a token bucket, a number of calls at a time.

A guard lets calls in, in this order: while the breaker is open none at all; then one that finds a
place, then a token, waits for each at most WAIT_S together; then the breaker's permit.  Whoever is
not let in is told when to come back (`Delayed`), has taken nothing, and has spent no attempt.
While the breaker is not closed, `turns` says whose call finds out, and when the others look again.

`_changed` guards everything here and is never held while anything is called.  Each runner has its
own guards: the breaker is the runner's, of the limits it gives out its part.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import Any

from jobs.downstream.faults import Delayed
from jobs.downstream.turns import Turns
from jobs.execution.interruption import Interruption
from jobs.types.spec import NEVER, DownstreamSpec
from pipeline.delivery.breaker import CLOSED, HALF_OPEN, Breaker, Permit
from pipeline.intake.ratelimit import Bucket
from pipeline.runtime.clock import Clock

logger = logging.getLogger(__name__)

# A worker waits this long at most for a token and a place, then it takes up another job.
WAIT_S = 1.0
# Calls of one service at a time in one process, whatever its configuration allows.
MAX_CONNECTIONS = 64
# When to look again where only the end of other calls can tell.
_LOOK_AGAIN_S = 1.0


class Entry:
    """A call that was let in; it ends in one way, and ending it again changes nothing."""

    __slots__ = ("asker", "has_ended", "permit")

    def __init__(self, permit: Permit, asker: str) -> None:
        self.permit = permit
        self.asker = asker
        self.has_ended = False


class Guard:
    def __init__(self, spec: DownstreamSpec, *, clock: Clock) -> None:
        self._clock = clock
        self._name = spec.name
        self._changed = threading.Condition()
        self._settings = spec.breaker
        self._breaker = Breaker(spec.breaker, clock.monotonic())
        self._turns = Turns()
        self._bucket: Bucket | None = None
        self._places = MAX_CONNECTIONS
        self._in_flight = 0
        self._waiting = 0
        self._calls = 0
        self._failures = 0
        self._delayed = 0

    def configure(
        self, spec: DownstreamSpec, *, runners: int, rank: int = 0, is_elsewhere: bool = False
    ) -> None:
        """Take on changed settings; `is_elsewhere` forgets what was learnt of the old address.

        Of `runners` this is the one of that `rank`, from 0: the first have the odd places, so that
        all of them together never have more than there are.
        """
        now = self._clock.monotonic()
        with self._changed:
            self._name = spec.name
            self._settings = spec.breaker
            self._breaker.configure(spec.breaker, now)
            if is_elsewhere:
                self._breaker.reset(now)
            self._forget_turns()
            places = MAX_CONNECTIONS
            if spec.max_concurrent is not None:
                each, odd = divmod(spec.max_concurrent, runners)
                places = min(places, each + (rank < odd))
            self._places = places
            self._bucket = self._limited(spec, runners)
            self._changed.notify_all()

    def _limited(self, spec: DownstreamSpec, runners: int) -> Bucket | None:
        if spec.rate_per_s is None:
            return None
        rate_per_s = spec.rate_per_s / runners
        burst = max(1.0, (spec.burst or spec.rate_per_s) / runners)
        if self._bucket is None:
            return Bucket(rate_per_s=rate_per_s, burst=burst, monotonic=self._clock.monotonic)
        if (self._bucket.rate_per_s, self._bucket.burst) != (rate_per_s, burst):
            self._bucket.configure(rate_per_s=rate_per_s, burst=burst)
        return self._bucket

    # --- a call ----------------------------------------------------------------------------

    def enter(
        self,
        *,
        left_s: float,
        interruption: Interruption,
        asker: str = "",
        timeout_s: float = 0.0,
    ) -> Entry:
        """The right to make one call, of `timeout_s`, for `asker`.  Raises Delayed, Interrupted."""
        until = self._clock.monotonic() + min(WAIT_S, left_s)
        with interruption.telling(self._look_again), self._changed:
            self._waiting += 1
            try:
                while True:
                    interruption.check()
                    now = self._clock.monotonic()
                    self._refuse_while_open(asker, now)
                    left = until - now if self._places else 0.0  # none comes free here
                    if self._in_flight >= self._places:
                        wait_s, why = _LOOK_AGAIN_S, self._crowded()
                        is_over = left <= 0
                    else:
                        wait_s = self._bucket.take() if self._bucket is not None else 0.0
                        if wait_s == 0:
                            return self._let_in(asker, timeout_s, now)
                        why = "its rate limit is reached"
                        is_over = left < wait_s
                    if is_over:
                        raise self._not_now(wait_s, why)
                    self._clock.wait(self._changed, min(wait_s, left))
            finally:
                self._waiting -= 1

    def _crowded(self) -> str:
        if not self._places:
            return "other runners have all the places for calls at a time"
        many = "one call is" if self._places == 1 else f"{self._places} calls are"
        return f"{many} under way, as many as may be at a time"

    def _let_in(self, asker: str, timeout_s: float, now: float) -> Entry:
        permit = self._breaker.permit(now)
        if permit is None:  # asked a moment ago, under the same lock
            raise RuntimeError(f"the breaker of {self._name} changed its mind")
        if self._breaker.state == HALF_OPEN:
            self._turns.began(asker, now, timeout_s)
        self._in_flight += 1
        self._calls += 1
        return Entry(permit, asker)

    def _refuse_while_open(self, asker: str, now: float) -> None:
        if self._breaker.state == CLOSED:
            return
        due_s = self._breaker.due_s(now)
        if due_s is None:
            due_s, why = self._turns.probe_s(now), "one call finds out whether it is well again"
        elif due_s > 0:
            why = f"its breaker is open: {self._breaker.cause}"
        else:
            due_s = self._turns.others_s(asker, now)
            if due_s == 0:
                return
            why = f"the call of {asker} failed last, and another's finds out whether it is well"
        raise self._not_now(self._turns.away_s(asker, due_s, now), why)

    def _forget_turns(self) -> None:
        if self._breaker.state == CLOSED:
            self._turns = Turns()

    def _not_now(self, delay_s: float, why: str) -> Delayed:
        self._delayed += 1
        # Those that wait already go first.
        if self._bucket is not None and math.isfinite(delay_s):
            delay_s += max(0, self._waiting - 1) / self._bucket.rate_per_s
        return Delayed(delay_s, f"{self._name} is not called now: {why}")

    def _look_again(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # --- its end ---------------------------------------------------------------------------

    def succeeded(self, entry: Entry) -> None:
        """It answered, be it that it refuses the request."""
        self._leave(entry, lambda now: self._breaker.succeeded(entry.permit, now))

    def failed(self, entry: Entry, cause: str, *, retry_after_s: float | None = None) -> None:
        """It did not do its work."""

        def count(now: float) -> None:
            self._failures += 1
            self._breaker.failed(entry.permit, now, cause, retry_after_s=retry_after_s)

        self._leave(entry, count)

    def ignored(self, entry: Entry) -> None:
        """The call was cut, or was not made: that says nothing about the service."""
        self._leave(entry, lambda now: self._breaker.ignored(entry.permit))

    def _leave(self, entry: Entry, end: Callable[[float], None]) -> None:
        now = self._clock.monotonic()
        with self._changed:
            if entry.has_ended:
                return
            entry.has_ended = True
            before, trips = self._breaker.state, self._breaker.trips
            self._in_flight -= 1
            end(now)
            after, cause = self._breaker.state, self._breaker.cause
            is_trip = self._breaker.trips != trips
            open_s = self._breaker.retry_in_s(now)
            if is_trip:
                self._turns.opened(entry.asker, open_s)
            elif before != CLOSED:
                self._forget_turns()
            self._changed.notify_all()
        if is_trip:
            logger.warning(
                "the breaker of a downstream service opened",
                extra={
                    "downstream": self._name,
                    "because": cause,
                    "opened_by": entry.asker,
                    "open_s": round(open_s, 1),
                    "was": before,
                },
            )
        elif before == HALF_OPEN and after == CLOSED:
            logger.warning(
                "the breaker of a downstream service closed", extra={"downstream": self._name}
            )

    # --- looking ---------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        with self._changed:
            return not (self._in_flight or self._waiting)

    def state(self) -> dict[str, Any]:
        """As it is now, JSON-able."""
        now = self._clock.monotonic()
        with self._changed:
            return {
                "name": self._name,
                "breaker": self._breaker.state,
                "cause": self._breaker.cause,
                "retry_in_s": round(self._breaker.retry_in_s(now), 1),
                "in_flight": self._in_flight,
                "waiting": self._waiting,
                "calls": self._calls,
                "failures": self._failures,
                "delayed": self._delayed,
                "trips": self._breaker.trips,
                "opened_by": self._turns.opened_by,
                "trip_calls": self._breaker.trip_calls,
                "trip_failures": self._breaker.trip_failures,
                "trip_rule": self._rule(),
            }

    def _rule(self) -> str:
        """By what it opened; "" while it is closed."""
        settings = self._settings
        if self._breaker.state == CLOSED:
            return ""
        if settings.min_calls >= NEVER:
            return f"{settings.consecutive} calls in a row"
        return (
            f"{settings.failure_ratio:.0%} of at least {settings.min_calls} calls in"
            f" {settings.window_s:g} s"
        )
