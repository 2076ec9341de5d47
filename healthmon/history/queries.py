"""What pages and the admin ask of the history: latencies over time, and last results.

Each answers with a constant number of queries, whatever the number of targets.
Runs on the caller's thread; keeps nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from healthmon.history.models import ProbeResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A stretch of time that begins at `at`.  Latencies (ms) are those of probes that succeeded;
    void results are not counted."""

    at: datetime
    count: int
    failed: int
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Of one target over a window; as in a Point."""

    p50: float | None
    p95: float | None
    p99: float | None
    count: int
    failed: int


def latency(target_id: int, start: datetime, end: datetime, *, points: int = 120) -> list[Point]:
    """At most `points` (and one) stretches that have results, oldest first."""
    return []


def percentiles(
    target_ids: Iterable[int], start: datetime, end: datetime
) -> dict[int, Percentiles]:
    """For each target that has results in the window."""
    return {}


def sparklines(
    target_ids: Iterable[int], *, now: datetime, points: int = 30
) -> dict[int, list[float | None]]:
    """Mean latencies (ms) of the last hours, oldest first, None where there are none; for each
    target given."""
    return {target_id: [None] * points for target_id in target_ids}


def newest(target_ids: Iterable[int]) -> dict[int, ProbeResult]:
    """The newest result of each target that has any."""
    return {}


def last_results(
    target_id: int, *, limit: int = 50, before_id: int | None = None
) -> list[ProbeResult]:
    """A target's newest results first; `before_id` is the last id of the page before."""
    results = ProbeResult.objects.filter(target_id=target_id)
    if before_id is not None:
        results = results.filter(id__lt=before_id)
    return list(results.order_by("-id")[: max(1, min(limit, 1_000))])
