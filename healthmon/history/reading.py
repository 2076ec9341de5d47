"""Rows of a covered window, tallied by time, by target or both.  Called by `queries` alone.

Three queries at most: the marks (read by `cover`), the rollups of all levels, the results of
minutes that are open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from healthmon.history import due, statements
from healthmon.history.cover import Cover
from healthmon.history.models import MINUTE
from healthmon.history.tallies import Tally

_COUNTS = "ok, degraded, failed, void, latency_sum_ms, latency_max_ms, histogram"
MOST_RESULTS = 50_000
"""Rows of one answer that comes from results: two hours of a probe a second are 7,200."""


def by_target(connection: Any, ids: Sequence[int], cover: Cover) -> dict[int, Tally]:
    tallies: dict[int, Tally] = {}
    holds = cover.holds
    for span_s, start, target_id, *row in _rollups(connection, ids, cover, _COUNTS):
        if holds(span_s, start):
            tally = tallies.get(target_id)
            if tally is None:
                tally = tallies[target_id] = Tally()
            tally.merge(*row)
    for at, target_id, outcome, latency_ms in _results(connection, ids, cover):
        if cover.holds_result(at):
            tallies.setdefault(target_id, Tally()).add(outcome, latency_ms)
    return tallies


def by_time(connection: Any, target_id: int, cover: Cover, width: int) -> dict[int, Tally]:
    """Tallies of stretches `width` long, by their beginning."""
    tallies: dict[int, Tally] = {}
    for span_s, start, _, *row in _rollups(connection, [target_id], cover, _COUNTS):
        if cover.holds(span_s, start):
            tallies.setdefault(start // width * width, Tally()).merge(*row)
    for at, _, outcome, latency_ms in _results(connection, [target_id], cover):
        if cover.holds_result(at):
            tallies.setdefault(at // width * width, Tally()).add(outcome, latency_ms)
    return tallies


def results_by_time(
    connection: Any, target_id: int, start: int, end: int, width: int
) -> dict[int, Tally]:
    """The same from results alone."""
    minutes = statements.between(connection, "start", start // MINUTE * MINUTE, end)
    ((first_id, last_id),) = statements.fetch(
        connection,
        f"SELECT min(first_id), max(last_id) FROM {due.TABLE} "  # noqa: S608
        f"WHERE span_s = {MINUTE:d} AND {minutes}",
    )
    tallies: dict[int, Tally] = {}
    if first_id is None:
        return tallies
    for at, _, outcome, latency_ms in _read_results(
        connection, [target_id], (first_id, last_id), start, end
    ):
        tallies.setdefault(at // width * width, Tally()).add(outcome, latency_ms)
    return tallies


def means(
    connection: Any, ids: Sequence[int], cover: Cover, width: int
) -> list[tuple[int, int, float, int]]:
    """(target, stretch counted from the window's start, sum of latencies, successes)."""
    sums: dict[tuple[int, int], tuple[float, int]] = {}
    columns = "latency_sum_ms, ok + degraded"
    for span_s, start, target_id, total_ms, count in _rollups(connection, ids, cover, columns):
        if count and cover.holds(span_s, start):
            key = (target_id, (start - cover.start) // width)
            had_ms, had = sums.get(key, (0.0, 0))
            sums[key] = (had_ms + total_ms, had + count)
    for at, target_id, outcome, latency_ms in _results(connection, ids, cover):
        if outcome in ("ok", "degraded") and cover.holds_result(at):
            key = (target_id, (at - cover.start) // width)
            had_ms, had = sums.get(key, (0.0, 0))
            sums[key] = (had_ms + latency_ms, had + 1)
    return [(*key, total_ms, count) for key, (total_ms, count) in sums.items()]


def _rollups(connection: Any, ids: Sequence[int], cover: Cover, columns: str) -> list[Any]:
    """(span, start in seconds, target, columns…) of every level that the window needs."""
    whose = statements.one_of(connection, "target_id", ids)
    at = statements.epoch_of(connection, "start")
    selects = [
        f"SELECT span_s, {at}, target_id, {columns} FROM {statements.ROLLUPS} "  # noqa: S608
        f"WHERE {whose} AND {statements.rollups_where(connection, span_s, start, end)}"
        for span_s, start, end in cover.stretches()
    ]
    return statements.fetch(connection, " UNION ALL ".join(selects)) if selects else []


def _results(connection: Any, ids: Sequence[int], cover: Cover) -> list[Any]:
    """(second, target, outcome, latency) of minutes that are open; some may not count."""
    opened = cover.opened[MINUTE]
    if cover.ids is None or not opened:
        return []
    return _read_results(connection, ids, cover.ids, min(opened), max(opened) + MINUTE)


def _read_results(
    connection: Any, ids: Sequence[int], among: tuple[int, int], start: int, end: int
) -> list[Any]:
    at = statements.epoch_of(connection, "timestamp")
    whose = statements.one_of(connection, "target_id", ids)
    when = statements.between(connection, "timestamp", start, end)
    return statements.fetch(
        connection,
        f"SELECT {at}, target_id, outcome, latency_ms FROM {statements.RESULTS} "  # noqa: S608
        f"WHERE {whose} AND id >= {among[0]:d} AND id <= {among[1]:d} AND {when} "
        f"ORDER BY id DESC LIMIT {MOST_RESULTS:d}",
    )
