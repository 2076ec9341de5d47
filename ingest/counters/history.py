"""What a counter did over time, from its points: for the chart, and for the lines of a list.

Steps end at a whole one, so that a chart does not change its shape from one look to the next.  A
minute without a point added nothing, once there was the counter; before that nothing is known.
Runs in request threads; holds no state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ingest.models import Counter, CounterPoint

MINUTE = timedelta(minutes=1)
SPARK_MINUTES = 60
RATE_MINUTES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch that a chart shows, in steps."""

    key: str
    label: str
    step: timedelta
    steps: int
    tick_s: float


WINDOWS = (
    Window(key="1h", label="Hour", step=MINUTE, steps=60, tick_s=600),
    Window(key="24h", label="Day", step=10 * MINUTE, steps=144, tick_s=4 * 3600),
    Window(key="7d", label="Week", step=60 * MINUTE, steps=168, tick_s=24 * 3600),
    Window(key="30d", label="30 days", step=360 * MINUTE, steps=120, tick_s=5 * 24 * 3600),
)


def window_of(key: str) -> Window:
    """The window of that name; the first for any other."""
    return next((window for window in WINDOWS if window.key == key), WINDOWS[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What each step added; None where the counter was not there yet."""

    added: list[float | None]
    ends_at: datetime
    step_s: float
    recorded: int
    """Points behind it."""

    @property
    def total(self) -> float:
        return sum(value for value in self.added if value is not None)


def history(counter: Counter, window: Window, *, now: datetime) -> History:
    """The counter's steps, the last of which is the one that is not over yet."""
    step_s = window.step.total_seconds()
    ends_at = _floor(now, step_s) + window.step
    starts_at = ends_at - window.steps * window.step
    points = list(
        CounterPoint.objects.filter(
            counter=counter.key, minute__gte=starts_at, minute__lt=ends_at
        ).values_list("minute", "added")
    )
    added = _steps(points, starts_at=starts_at, step_s=step_s, steps=window.steps)
    return History(
        added=_known_since(added, counter.first_at, starts_at=starts_at, step_s=step_s),
        ends_at=ends_at,
        step_s=step_s,
        recorded=len(points),
    )


def sparks(counters: Sequence[Counter], *, now: datetime) -> dict[str, list[float | None]]:
    """What each minute of the last hour added, for many counters in one query."""
    step_s = MINUTE.total_seconds()
    ends_at = _floor(now, step_s) + MINUTE
    starts_at = ends_at - SPARK_MINUTES * MINUTE
    points: dict[str, list[tuple[datetime, int]]] = {counter.key: [] for counter in counters}
    rows = CounterPoint.objects.filter(
        counter__in=list(points), minute__gte=starts_at, minute__lt=ends_at
    ).values_list("counter", "minute", "added")
    for key, minute, added in rows:
        points[key].append((minute, added))
    return {
        counter.key: _known_since(
            _steps(points[counter.key], starts_at=starts_at, step_s=step_s, steps=SPARK_MINUTES),
            counter.first_at,
            starts_at=starts_at,
            step_s=step_s,
        )
        for counter in counters
    }


def per_minute(minutes: Sequence[float | None]) -> float | None:
    """The rate lately: the mean of the last whole minutes; None where there is none yet."""
    whole = [value for value in minutes[-RATE_MINUTES - 1 : -1] if value is not None]
    return sum(whole) / len(whole) if whole else None


def _floor(moment: datetime, step_s: float) -> datetime:
    return datetime.fromtimestamp(moment.timestamp() // step_s * step_s, tz=UTC)


def _steps(
    points: Iterable[tuple[datetime, int]], *, starts_at: datetime, step_s: float, steps: int
) -> list[float]:
    added = [0.0] * steps
    for minute, value in points:
        place = int((minute - starts_at).total_seconds() // step_s)
        if 0 <= place < steps:
            added[place] += value
    return added


def _known_since(
    added: list[float], first_at: datetime, *, starts_at: datetime, step_s: float
) -> list[float | None]:
    unknown = int((first_at - starts_at).total_seconds() // step_s)
    return [None if place < unknown else value for place, value in enumerate(added)]
