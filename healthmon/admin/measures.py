"""What is measured of targets, as the admin asks for it: a fixed number of queries a page.

History is in the records database, which may be away: then the figures are missing, never the
page.  Runs in request threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.db import DatabaseError

from healthmon.history import queries
from healthmon.truth import slo
from healthmon.truth import uptime as uptimes
from healthmon.truth.moments import us_of

logger = logging.getLogger(__name__)

T = TypeVar("T")
DAY = timedelta(days=1)


def told(question: Callable[[], T], otherwise: T, *, what: str) -> T:
    """The answer, or `otherwise` while the database that knows it is away."""
    try:
        return question()
    except DatabaseError:
        logger.warning("the history cannot be read", extra={"what": what}, exc_info=True)
        return otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Of the targets of one page of the list."""

    day: dict[int, Any] = field(default_factory=dict)
    month: dict[int, Any] = field(default_factory=dict)
    latency: dict[int, Any] = field(default_factory=dict)
    sparklines: dict[int, list[float | None]] = field(default_factory=dict)
    newest: dict[int, Any] = field(default_factory=dict)


def of_page(target_ids: Sequence[int], now: datetime) -> Measures:
    ids = list(target_ids)
    if not ids:
        return Measures()
    day, month = _uptimes(ids, now)
    return Measures(
        day=day,
        month=month,
        latency=told(lambda: queries.percentiles(ids, now - DAY, now), {}, what="latencies"),
        sparklines=told(lambda: queries.sparklines(ids, now=now), {}, what="sparklines"),
        newest=told(lambda: queries.newest(ids), {}, what="results"),
    )


def _uptimes(ids: list[int], now: datetime) -> tuple[dict[int, Any], dict[int, Any]]:
    """Of the last day and of the last thirty, from the flips read once."""
    start_us, day_us, end_us = (us_of(at) for at in (now - 30 * DAY, now - DAY, now))
    seen = uptimes.stretches(ids, now - 30 * DAY, now)
    return (
        {pk: uptimes.sums_between(found, day_us, end_us) for pk, found in seen.items()},
        {pk: uptimes.sums_between(found, start_us, end_us) for pk, found in seen.items()},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Uptime over one window, as the overview shows it."""

    label: str
    ratio: float | None
    down_s: float
    # Of how much of the window anything is known, where that is not nearly all of it.
    known_s: float | None = None


NEARLY_ALL = 0.99
SPANS = (("24 hours", 1), ("7 days", 7), ("30 days", 30), ("90 days", 90))


def spans(target_id: int, now: datetime) -> list[Span]:
    found = []
    for label, days in SPANS:
        one = uptimes.uptime([target_id], now - days * DAY, now).get(target_id)
        partly = one is not None and one.known_s < NEARLY_ALL * days * DAY.total_seconds()
        found.append(
            Span(
                label=label,
                ratio=one.ratio if one is not None else None,
                down_s=one.down_s if one is not None else 0.0,
                known_s=one.known_s if one is not None and partly else None,
            )
        )
    return found


def ribbon(target_id: int, now: datetime, *, days: int = 90) -> list[Any]:
    return list(uptimes.ribbon([target_id], days=days, now=now).get(target_id, []))


def objective(target_id: int, now: datetime) -> Any:
    return slo.objective([target_id], now).get(target_id)
