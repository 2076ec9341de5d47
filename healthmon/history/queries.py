"""What pages and the admin ask of the history: latencies over time, and last results.

Each answers with a constant number of queries, whatever the number of targets.  Minutes that are
not rolled up yet are read from the results, so that an answer lags by no more than the `results`
sink.  Latencies (ms) are those of probes that succeeded; void results are not counted.
Runs on the caller's thread; keeps nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import connections
from django.utils import timezone

from healthmon.history import reading, statements
from healthmon.history.cover import RESULTS, cover
from healthmon.history.models import DAY, HOUR, MINUTE, ProbeResult
from healthmon.history.retention import first_kept
from healthmon.history.tallies import Tally

ALIAS = "records"
MOST_TARGETS = 5_000
MOST_POINTS = 2_000
MOST_RESULTS = 1_000
SPARKLINE_S = 3_600
# Of a window's rollups at most so many are read at its level: the cost of an answer.
MOST_ROLLUPS = 6_000
_ABOVE = {RESULTS: MINUTE, MINUTE: HOUR, HOUR: DAY}
_QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A stretch of time that begins at `at`."""

    at: datetime
    count: int
    failed: int
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Of one target over a window."""

    p50: float | None
    p95: float | None
    p99: float | None
    count: int
    failed: int


def latency(target_id: int, start: datetime, end: datetime, *, points: int = 120) -> list[Point]:
    """The stretches that have results, oldest first: about `points` in the window, all as long.

    They are whole minutes, hours or days as soon as they are longer than one of these, and begin
    at round times; what is past its retention is answered by the level above.
    """
    first, last = int(start.timestamp()), -int(-end.timestamp() // 1)
    if last <= first:
        return []
    now = timezone.now()
    width = max(1, -(-(last - first) // max(1, min(points, MOST_POINTS))))
    level = _level_for_width(width, first, now)
    unit = max(level, 1)
    width = -(-width // unit) * unit
    connection = connections[ALIAS]
    if level == RESULTS:
        tallies = reading.results_by_time(connection, target_id, first, last, width)
    else:
        whole = cover(connection, first, last, level, int(now.timestamp()))
        tallies = reading.by_time(connection, target_id, whole, width)
    return [_point(at, tallies[at]) for at in sorted(tallies)]


def percentiles(
    target_ids: Iterable[int], start: datetime, end: datetime
) -> dict[int, Percentiles]:
    """For each target that has results in the window.

    The window is taken out to whole minutes, hours or days, the shortest with which the answer
    stays cheap: for a hundred targets minutes up to an hour, hours up to two days and a half.
    """
    ids = _bounded(target_ids)
    first, last = int(start.timestamp()), -int(-end.timestamp() // 1)
    if not ids or last <= first:
        return {}
    now = timezone.now()
    level = MINUTE
    while level in _ABOVE and (
        len(ids) * (last - first) > MOST_ROLLUPS * level or first < first_kept(level, now)
    ):
        level = _ABOVE[level]
    connection = connections[ALIAS]
    whole = cover(connection, first, last, level, int(now.timestamp()))
    found = {}
    for target_id, tally in reading.by_target(connection, ids, whole).items():
        if tally.count:
            p50, p95, p99 = tally.histogram.quantiles(_QUANTILES)
            found[target_id] = Percentiles(
                p50=p50, p95=p95, p99=p99, count=tally.count, failed=tally.failed
            )
    return found


def sparklines(
    target_ids: Iterable[int], *, now: datetime, points: int = 30, span_s: int = SPARKLINE_S
) -> dict[int, list[float | None]]:
    """Mean latencies of the last `span_s`, oldest first, None where there are none.

    For each target given; the last point is the one that is not over.
    """
    ids = _bounded(target_ids)
    points = max(1, min(points, MOST_POINTS))
    width = max(MINUTE, span_s // points // MINUTE * MINUTE)
    end = int(now.timestamp()) // width * width + width
    start = end - points * width
    lines: dict[int, list[float | None]] = {target_id: [None] * points for target_id in ids}
    if not ids:
        return lines
    connection = connections[ALIAS]
    whole = cover(connection, start, end, MINUTE, int(now.timestamp()))
    for target_id, place, total_ms, count in reading.means(connection, ids, whole, width):
        if count and 0 <= place < points:
            lines[target_id][place] = total_ms / count
    return lines


def newest(target_ids: Iterable[int]) -> dict[int, ProbeResult]:
    """The newest result of each target that has any."""
    ids = _bounded(target_ids)
    if not ids:
        return {}
    connection = connections[ALIAS]
    # A hop for each target down the index, and never a walk through its results.
    values = ",".join(f"({target_id:d})" for target_id in ids)
    last = (
        f"SELECT id FROM {statements.RESULTS} r WHERE r.target_id = t.target_id "  # noqa: S608
        "ORDER BY r.id DESC LIMIT 1"
    )
    rows: Sequence[Any] = statements.fetch(
        connection,
        f"WITH t(target_id) AS (VALUES {values}) SELECT ({last}) FROM t",  # noqa: S608
    )
    found = [row[0] for row in rows if row[0] is not None]
    if not found:
        return {}
    where = statements.one_of(connection, "id", found)
    results = ProbeResult.objects.raw(
        f"SELECT * FROM {statements.RESULTS} WHERE {where}",  # noqa: S608
        using=ALIAS,
    )
    return {result.target_id: result for result in results}


def last_results(
    target_id: int, *, limit: int = 50, before_id: int | None = None
) -> list[ProbeResult]:
    """A target's newest results first; `before_id` is the last id of the page before."""
    results = ProbeResult.objects.filter(target_id=target_id)
    if before_id is not None:
        results = results.filter(id__lt=before_id)
    return list(results.order_by("-id")[: max(1, min(limit, MOST_RESULTS))])


def _level_for_width(width: int, first: int, now: datetime) -> int:
    level = next((level for level in (DAY, HOUR, MINUTE) if width >= level), RESULTS)
    while level in _ABOVE and first < first_kept(level, now):
        level = _ABOVE[level]
    return level


def _point(at: int, tally: Tally) -> Point:
    p50, p95, p99 = tally.histogram.quantiles(_QUANTILES)
    return Point(
        at=datetime.fromtimestamp(at, UTC),
        count=tally.count,
        failed=tally.failed,
        p50=p50,
        p95=p95,
        p99=p99,
    )


def _bounded(target_ids: Iterable[int]) -> list[int]:
    ids = sorted({int(target_id) for target_id in target_ids})
    if len(ids) > MOST_TARGETS:
        raise ValueError(f"{len(ids)} targets at once; ask for at most {MOST_TARGETS}")
    return ids
