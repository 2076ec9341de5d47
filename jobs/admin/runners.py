"""Who runs jobs now, and what they say of the downstream services, from their last beats.

A runner's figures come from another process: whatever is not as expected is left out.  Runs in
request threads; only shows, and decides nothing by a wall clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from control.admin.inert import one_line
from jobs.store.models import Runner

RUNNERS_SHOWN = 50
# A beat comes a few times a lease; so much later its jobs are about to go to others.
GRACE_S = 2.0
_RANK = {"closed": 0, "half_open": 1, "open": 2}


def _number(value: Any) -> float:
    right = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if right else 0.0


@dataclass(frozen=True, kw_only=True)
class ShownRunner:
    runner: Runner
    alive: bool

    @property
    def figures(self) -> Mapping[str, Any]:
        told = self.runner.figures
        return told if isinstance(told, dict) else {}

    def figure(self, name: str) -> int | None:
        value = self.figures.get(name)
        return int(_number(value)) if isinstance(value, int | float) else None

    @property
    def workers(self) -> int | None:
        return self.figure("workers")

    @property
    def max_workers(self) -> int | None:
        return self.figure("max_workers")

    @property
    def busy(self) -> int | None:
        return self.figure("busy")

    @property
    def waiting(self) -> int | None:
        return self.figure("waiting")

    @property
    def hung(self) -> int:
        return self.figure("hung") or 0

    @property
    def stuck(self) -> bool:
        """So many of its threads hang that it takes no more jobs."""
        return self.figures.get("stuck") is True

    @property
    def ended(self) -> int | None:
        known = [self.figure(name) for name in ("succeeded", "dead", "cancelled")]
        return sum(one or 0 for one in known) if any(one is not None for one in known) else None

    @property
    def trouble(self) -> str:
        return str(self.figures.get("database_error") or "")[:300]


@dataclass(kw_only=True)
class Health:
    """A downstream service as all living runners together see it."""

    name: str
    breaker: str = "closed"
    cause: str = ""
    retry_in_s: float | None = None
    in_flight: int = 0
    calls: int = 0
    failures: int = 0
    trips: int = 0
    runners: int = 0
    open_in: int = 0
    opened_by: str = ""
    trip_calls: int = 0
    trip_failures: int = 0
    told_by: list[str] = field(default_factory=list)

    @property
    def failed_share(self) -> float | None:
        return self.failures / self.calls if self.calls else None

    @property
    def troubled(self) -> bool:
        return self.breaker != "closed"

    @property
    def tripped(self) -> str:
        """Whose calls opened it, and how many had failed, where the runner says so."""
        if not self.troubled:
            return ""
        by = f" It was opened by {self.opened_by}." if self.opened_by else ""
        if self.trip_calls:
            by += f" {self.trip_failures:,} of {self.trip_calls:,} calls had failed then."
        return by

    def add(self, told: Mapping[str, Any], runner: str) -> None:
        state = str(told.get("breaker") or told.get("state") or "closed").replace("-", "_")
        self.runners += 1
        self.told_by.append(runner)
        self.in_flight += int(_number(told.get("in_flight")))
        self.calls += int(_number(told.get("calls")))
        self.failures += int(_number(told.get("failures")))
        self.trips += int(_number(told.get("trips")))
        self.open_in += state != "closed"
        if _RANK.get(state, 0) >= _RANK[self.breaker]:
            if state != "closed":
                self.cause = str(told.get("cause") or self.cause)[:300]
                wait = told.get("retry_in_s")
                self.retry_in_s = _number(wait) if wait is not None else None
                self.opened_by = one_line(str(told.get("opened_by") or ""), limit=160)
                self.trip_calls = int(_number(told.get("trip_calls")))
                self.trip_failures = int(_number(told.get("trip_failures")))
            self.breaker = state if state in _RANK else self.breaker


def runners(now: datetime) -> list[ShownRunner]:
    """Those that are known, the living first."""
    silent = timedelta(seconds=settings.COLLECTOR.jobs.lease_s + GRACE_S)
    rows = Runner.objects.order_by("-seen_at")[:RUNNERS_SHOWN]
    shown = [ShownRunner(runner=row, alive=row.seen_at >= now - silent) for row in rows]
    return sorted(shown, key=lambda one: (not one.alive, one.runner.started_at))


def downstreams(shown: Iterable[ShownRunner]) -> dict[str, Health]:
    """By name, what the living say."""
    found: dict[str, Health] = {}
    for one in shown:
        told = one.figures.get("downstreams") if one.alive else None
        for row in told if isinstance(told, list) else ():
            name = row.get("name") if isinstance(row, dict) else None
            if isinstance(name, str) and name:
                found.setdefault(name, Health(name=name)).add(row, str(one.runner))
    return found
