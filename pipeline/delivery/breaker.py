"""The breaker: stops asking a sink that keeps failing, and asks it again after a while.

Closed, it lets every attempt through and watches how they end.  It trips when `consecutive`
attempts in a row failed, or when of at least `min_calls` in the last `window_s` the share
`failure_ratio` did; open, it lets nothing through for `open_s`, or for as long as the sink itself
asked for.  Then it is half-open: at most `half_open_probes` attempts are let through, and when as
many have succeeded it is closed again; the first that fails opens it for the same time as before.

An attempt needs a permit and ends it in exactly one way:

    succeeded   the sink answered, be it that it refuses records (PermanentError, PartialFailure)
    failed      the sink did not do its work: any other error, or no answer until the watchdog came
    ignored     a stop or a replaced sink came in between: it says nothing about the sink

A permit belongs to the state that gave it (its generation): what becomes of it after the breaker
tripped, closed or was reset changes nothing, nor does ending it twice.

A pure object that knows no clock and takes no lock: every method is called with the lock of the
pipeline that owns it, and is told the monotonic time `now`.  What is open holds its work: a batch
without a permit spends no attempt, and `closed_s`, by which its age is measured, stands still.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from pipeline.delivery.retry import RETRY_AFTER_CAP_S

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"

# The window moves on in so many steps, so that it holds this many counts at most.
STEPS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """When a breaker trips, and how it finds out that the sink is well again.

    It trips after `consecutive` failed attempts in a row, or when of at least `min_calls` within
    `window_s` the share `failure_ratio` (0 to 1) failed.  Open, it asks nothing for `open_s`; then
    `half_open_probes` attempts must succeed to close it.
    """

    enabled: bool = True
    consecutive: int = 5
    failure_ratio: float = 0.6
    min_calls: int = 3
    window_s: float = 60.0
    open_s: float = 30.0
    half_open_probes: int = 1

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise ValueError("; ".join(problems))

    def problems(self) -> list[str]:
        """Every broken rule, each naming its field."""
        rules = (
            (self.consecutive >= 1, "breaker consecutive must be at least 1"),
            (0 < self.failure_ratio <= 1, "breaker failure_ratio must be above 0 and at most 1"),
            (self.min_calls >= 1, "breaker min_calls must be at least 1"),
            (self.window_s > 0, "breaker window_s must be positive"),
            (self.open_s > 0, "breaker open_s must be positive"),
            (self.half_open_probes >= 1, "breaker half_open_probes must be at least 1"),
        )
        return [message for holds, message in rules if not holds]


class Permit:
    """The right to make one attempt."""

    __slots__ = ("ended", "generation")

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.ended = False


class Breaker:
    """See the module's text."""

    def __init__(self, settings: BreakerSettings, now: float) -> None:
        self._settings = settings
        self._generation = 0
        self._consecutive = 0
        self._steps: deque[list[int]] = deque()  # [number of the step, attempts, failures]
        self._tripped_at = 0.0  # the last time, half-open probes that failed included
        self._asked_until = 0.0  # what the sink asked for since it last succeeded
        self._probes_out = 0
        self._probes_succeeded = 0
        self._closed_since = now
        self._closed_s = 0.0
        self.state = CLOSED
        self.trips = 0  # how often it opened, failed probes included
        self.cause = ""  # of the last trip, until it is closed again
        self.trip_calls = 0  # that were looked at when it opened, until it is closed again
        self.trip_failures = 0
        self.opened_at: float | None = None
        """Since when it has not been closed (monotonic); None while it is."""

    # --- attempts --------------------------------------------------------------------------

    def permit(self, now: float) -> Permit | None:
        """The right to make an attempt now, if it may be made; opens half when it is time."""
        if self.state == OPEN and self.retry_in_s(now) <= 0:
            self._enter(HALF_OPEN)
        if self.due_s(now) != 0:
            return None
        if self.state == HALF_OPEN:
            self._probes_out += 1
        return Permit(self._generation)

    def succeeded(self, permit: Permit, now: float) -> None:
        """The sink answered."""
        if not self._ends(permit):
            return
        if self.state == HALF_OPEN:
            self._probes_succeeded += 1
            if self._probes_succeeded >= self._settings.half_open_probes:
                self._close(now)
            return
        self._consecutive = 0
        self._asked_until = 0.0
        self._count(now, failures=0)

    def failed(
        self,
        permit: Permit,
        now: float,
        cause: str,
        *,
        retry_after_s: float | None = None,
        trip: bool = False,
    ) -> None:
        """The sink did not do its work; `trip` when this one failure is proof enough."""
        if not self._ends(permit) or not self._settings.enabled:
            return
        if retry_after_s is not None:
            asked = min(retry_after_s, RETRY_AFTER_CAP_S)
            self._asked_until = max(self._asked_until, now + asked)
        if self.state == CLOSED:
            self._consecutive += 1
            self._count(now, failures=1)
            if not (trip or self._is_failing(now)):
                return
            calls, failures = self._counted()
            self.trip_calls = max(calls, self._consecutive)
            self.trip_failures = max(failures, self._consecutive)
            self.opened_at = now
            self._closed_s += now - self._closed_since
        self.trips += 1
        self.cause = cause
        self._tripped_at = now
        self._enter(OPEN)

    def ignored(self, permit: Permit) -> None:
        """The attempt says nothing about the sink; a probe's place is free again."""
        self._ends(permit)

    def _ends(self, permit: Permit) -> bool:
        """Whether this end of a permit counts."""
        if permit.ended or permit.generation != self._generation:
            return False
        permit.ended = True
        if self.state == HALF_OPEN:
            self._probes_out -= 1
        return True

    # --- when ------------------------------------------------------------------------------

    def due_s(self, now: float) -> float | None:
        """Seconds until a permit may be had, 0 for now; None: when a probe under way has ended."""
        if self.state == OPEN:
            return self.retry_in_s(now)
        if self.state == HALF_OPEN:
            taken = self._probes_out + self._probes_succeeded
            return 0.0 if taken < self._settings.half_open_probes else None
        return 0.0

    def retry_in_s(self, now: float) -> float:
        """Seconds that an open breaker stays open; 0 when it is not open."""
        if self.state != OPEN:
            return 0.0
        until = max(self._tripped_at + self._settings.open_s, self._asked_until)
        return max(0.0, until - now)

    def closed_s(self, now: float) -> float:
        """All the time it was closed.  The age of a batch is the difference of two readings."""
        return self._closed_s + (now - self._closed_since if self.state == CLOSED else 0.0)

    # --- from outside ----------------------------------------------------------------------

    def configure(self, settings: BreakerSettings, now: float) -> None:
        """Take on changed settings, also for the time an open breaker stays open."""
        if settings == self._settings:
            return
        self._settings = settings
        self._steps.clear()  # counted by another width
        enough = self.state == HALF_OPEN and self._probes_succeeded >= settings.half_open_probes
        if enough or not settings.enabled:
            self._close(now)

    def reset(self, now: float) -> None:
        """Close at once and forget: the sink was replaced."""
        self._close(now)

    # --- parts -----------------------------------------------------------------------------

    def _enter(self, state: str) -> None:
        self.state = state
        self._generation += 1
        self._consecutive = 0
        self._steps.clear()
        self._probes_out = self._probes_succeeded = 0

    def _close(self, now: float) -> None:
        if self.state != CLOSED:
            self._closed_since = now
        self._enter(CLOSED)
        self._asked_until = 0.0
        self.opened_at = None
        self.cause = ""
        self.trip_calls = self.trip_failures = 0

    def _count(self, now: float, *, failures: int) -> None:
        number = self._step(now)
        if not self._steps or self._steps[-1][0] != number:
            self._steps.append([number, 0, 0])
        self._steps[-1][1] += 1
        self._steps[-1][2] += failures
        self._forget(number)

    def _forget(self, number: int) -> None:
        while self._steps and self._steps[0][0] <= number - STEPS:
            self._steps.popleft()

    def _step(self, now: float) -> int:
        return int(now * STEPS / self._settings.window_s)

    def _is_failing(self, now: float) -> bool:
        if self._consecutive >= self._settings.consecutive:
            return True
        calls, failures = self._counted()
        settings = self._settings
        return calls >= settings.min_calls and failures / calls >= settings.failure_ratio

    def _counted(self) -> tuple[int, int]:
        """Attempts and failures within the window."""
        return sum(step[1] for step in self._steps), sum(step[2] for step in self._steps)
