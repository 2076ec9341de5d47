"""One heartbeat target as the feed follows it: what was last heard, and when a ping is missed.

Pure but for what it remembers; used on the feed's thread alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from healthmon.heartbeats.delivery import Delivery
from healthmon.heartbeats.kind import HeartbeatOptions
from healthmon.heartbeats.pings import DEGRADED, FAIL, START
from healthmon.heartbeats.schedule import Due, due, next_miss
from healthmon.probes.kind import DEGRADED as RESULT_DEGRADED
from healthmon.probes.kind import FAILED, OK, VOID, Result

# Pings are stored within a second or two, and processes tell of themselves every five.
PATIENCE_S = 15.0
VOID_EVERY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a target's row says of its pings."""

    options: HeartbeatOptions
    interval_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A ping that says how something went."""

    at: datetime
    kind: str
    error: str
    duration_ms: float | None


def result_of(ended: Ended) -> Result:
    took = max(ended.duration_ms or 0.0, 0.0)
    if ended.kind == FAIL:
        return Result(outcome=FAILED, error=ended.error, total_ms=took)
    if ended.kind == DEGRADED:
        return Result(outcome=RESULT_DEGRADED, error="it said that it is degraded", total_ms=took)
    return Result(outcome=OK, total_ms=took)


class Watch:
    """`seq` is the newest ping that was told of; `since` from when on this target is followed."""

    __slots__ = ("_due", "_last", "_run", "_tell_at", "_told_at", "_waits_since", "plan", "seq",
                 "since")  # fmt: skip

    def __init__(self, plan: Plan, *, since: datetime | None = None) -> None:
        self.plan = plan
        self.seq = 0
        self.since = since
        self._last: datetime | None = None
        self._run: datetime | None = None
        self._due: Due | None = None
        self._tell_at: datetime | None = None
        self._told_at: datetime | None = None
        self._waits_since: datetime | None = None

    def replan(self, plan: Plan) -> None:
        if plan != self.plan:
            self.plan = plan
            self._reckon()

    def heard(
        self, seq: int, *, status: str, last_end: datetime | None, last_start: datetime | None
    ) -> None:
        """What the row says now: the newest ping, the last that ended something, a run begun."""
        self.seq = seq
        self._last = last_end
        self._run = last_start if status == START else None
        self._reckon()

    def told(self, at: datetime) -> datetime:
        """When a result counts as found: not before one that was told of already."""
        if self._told_at is not None and at <= self._told_at:
            at = self._told_at + timedelta(microseconds=1)
        self._told_at = at
        return at

    def missed(self, known: Delivery, now: datetime) -> tuple[datetime, Result] | None:
        """A result when a ping should have come and has not, or when that cannot be told."""
        waited_for = self._due
        if waited_for is None or now < self._missed_at(waited_for, known):
            return None
        at = self._missed_at(waited_for, known)
        if known.known_until is not None and known.known_until >= at:
            self._waits_since = None
            self._tell_at = next_miss(self.plan.options, self.plan.interval_s, waited_for, now)
            return self.told(at), Result(outcome=FAILED, error=waited_for.reason)
        if self._waits_since is None:
            self._waits_since = now
        if (now - self._waits_since).total_seconds() < PATIENCE_S:
            return None
        # The first after some patience, further ones seldom.
        self._waits_since = now + timedelta(seconds=VOID_EVERY_S - PATIENCE_S)
        return self.told(now), Result(
            outcome=VOID, error=f"a ping is missing or late: {known.cause}"
        )

    def _missed_at(self, waited_for: Due, known: Delivery) -> datetime:
        """Not before a ping could have come since pings are taken in, and since it is watched."""
        at = self._tell_at or waited_for.missed_at
        grace = timedelta(seconds=self.plan.options.grace_s)
        for since in (known.listening_since, self.since):
            if since is not None:
                at = max(at, since + grace)
        return at

    def _reckon(self) -> None:
        self._due = due(self.plan.options, self.plan.interval_s, self._last, run_began=self._run)
        self._tell_at = self._waits_since = None
