"""When a schedule's times come, by a cron expression and the clock of a place.  Pure.

Times are aware, in UTC.  Cron follows the wall clock of its zone as Debian's does: what names an
hour that is skipped when clocks are put forward comes right after it, what names one that comes
twice comes once, and what comes every so many minutes goes on doing so.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

FIELDS = 5
NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
MAX_CHARS = 100
# Of the times within an hour that comes twice, those that are gone by are passed over.
_MOST_PASSED_OVER = 200


class ScheduleError(ValueError):
    """The expression or the zone cannot be used; the text says why."""


def next_time(expression: str, zone: str, after: datetime) -> datetime | None:
    """The first time later than `after`; None when none ever comes.  Raises ScheduleError."""
    place = zone_of(zone)
    try:
        times = CronSim(_fields(expression), after.astimezone(place))
        for _ in range(_MOST_PASSED_OVER):
            found = next(times).astimezone(UTC)
            if found > after:
                return found
    except CronSimError as error:
        raise ScheduleError(f"cron {expression!r}: {error}"[:300]) from None
    except (StopIteration, OverflowError):
        return None
    return None


def next_times(expression: str, zone: str, after: datetime, count: int) -> list[datetime]:
    """The first `count` times later than `after`.  Raises ScheduleError."""
    times: list[datetime] = []
    at: datetime | None = after
    while len(times) < count:
        at = next_time(expression, zone, at) if at is not None else None
        if at is None:
            break
        times.append(at)
    return times


def problems(expression: str, zone: str, *, now: datetime | None = None) -> dict[str, str]:
    """What is wrong, by field (`cron`, `timezone`), for whoever enters it."""
    try:
        zone_of(zone)
    except ScheduleError as error:
        return {"timezone": str(error)}
    try:
        if next_time(expression, zone, now or datetime.now(UTC)) is None:
            return {"cron": f"cron {expression!r} never comes"[:300]}
    except ScheduleError as error:
        return {"cron": str(error)}
    return {}


@lru_cache(maxsize=1_000)
def zone_of(name: str) -> ZoneInfo:
    """Raises ScheduleError."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ScheduleError(
            f"there is no time zone {name!r}; write it like Europe/Vienna"[:300]
        ) from None


def _fields(expression: str) -> str:
    text = expression.strip()
    if len(text) > MAX_CHARS:
        raise ScheduleError(f"cron has at most {MAX_CHARS} characters")
    if text.startswith("@"):
        known = NAMED.get(text.lower())
        if known is None:
            raise ScheduleError(f"cron {text!r} is not known; known are {', '.join(NAMED)}")
        return known
    if len(text.split()) != FIELDS:
        raise ScheduleError("cron has five fields: minute, hour, day of month, month, day of week")
    return text
