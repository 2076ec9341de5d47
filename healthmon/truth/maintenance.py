"""When maintenance windows are open: once, or by cron in a time zone of its own.  Pure functions.

A window is open from its start for its duration, in elapsed seconds: an hour is an hour on the
night the clocks change, too.  Cron follows the wall clock as cron itself does: what falls into the
hour that is skipped happens right after it, what falls into the hour that comes twice happens
once.  Times are aware datetimes in UTC.  Every question looks at a bounded number of days.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

if TYPE_CHECKING:
    from healthmon.targets.models import MaintenanceWindow

MAX_DAYS_AHEAD = 400
_DAY = timedelta(days=1)
_NONE_LONGER = timedelta(hours=4)  # that clocks are ever put forward or back


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """One window.  Without `cron` it opens once, at `starts_at`; with it there and again."""

    starts_at: datetime
    duration_s: float
    cron: str = ""
    time_zone: str = "UTC"
    ends_at: datetime | None = None

    @classmethod
    def of(cls, row: MaintenanceWindow) -> Window:
        return cls(
            starts_at=row.starts_at,
            duration_s=row.duration_s,
            cron=row.cron.strip(),
            time_zone=row.time_zone,
            ends_at=row.ends_at,
        )

    @property
    def duration(self) -> timedelta:
        return timedelta(seconds=self.duration_s)


def problem(window: Window) -> str:
    """What is wrong with it, for whoever enters it; "" when nothing is."""
    try:
        ZoneInfo(window.time_zone)
    except (KeyError, ValueError, OSError):
        return f"there is no time zone {window.time_zone!r}; write it like Europe/Vienna"[:200]
    if window.cron:
        if len(window.cron.split()) != 5:
            return "cron has five fields: minute, hour, day of month, month, day of week"
        try:
            next(CronSim(window.cron, window.starts_at.astimezone(UTC)))
        except CronSimError as error:
            return f"cron {window.cron!r}: {error}"[:200]
        except StopIteration:
            return f"cron {window.cron!r} never comes"[:200]
    if window.duration_s <= 0:
        return "a window lasts longer than nothing"
    if window.ends_at is not None and window.ends_at < window.starts_at:
        return "a window cannot end before it starts"
    return ""


def active(window: Window, now: datetime) -> bool:
    return open_until(window, now) is not None


def open_until(window: Window, now: datetime) -> datetime | None:
    """When the occurrence that is open now ends (another may begin before); None when none is."""
    last = _last_start(window, now)
    return None if last is None else last + window.duration


def next_start(window: Window, now: datetime) -> datetime | None:
    """When it opens next after `now`; None when never, or not within MAX_DAYS_AHEAD."""
    if window.starts_at > now:
        return window.starts_at
    if not window.cron or (window.ends_at is not None and window.ends_at <= now):
        return None
    first = now.astimezone(UTC).date()
    # Most come within days; what comes once a year is looked for a day at a time, too.
    for offset in range(MAX_DAYS_AHEAD):
        for start in _starts(window, first + offset * _DAY):
            if start > now:
                return start
    return None


def _last_start(window: Window, now: datetime) -> datetime | None:
    """The latest start whose occurrence is open at `now`."""
    earliest = now - window.duration  # one that started then has just ended
    if now < window.starts_at:
        return None
    if window.cron:
        day = now.astimezone(UTC).date()
        while day >= earliest.astimezone(UTC).date():
            starts = _starts(window, day)
            index = bisect_right(starts, now)
            if index:
                last = starts[index - 1]
                return last if last > earliest else None
            day -= _DAY
    return window.starts_at if window.starts_at > earliest else None


@lru_cache(maxsize=1_024)
def _starts(window: Window, day: date) -> tuple[datetime, ...]:
    """The starts on one day of UTC, in order, the very first included."""
    begin = datetime.combine(day, time(), UTC)
    end = begin + _DAY
    starts = {moment for moment in _ticks(window, begin, end) if moment > window.starts_at}
    if window.ends_at is not None:
        starts = {moment for moment in starts if moment <= window.ends_at}
    if begin <= window.starts_at < end:
        starts.add(window.starts_at)
    return tuple(sorted(starts))


def _ticks(window: Window, begin: datetime, end: datetime) -> Iterator[datetime]:
    if end <= window.starts_at:
        return
    try:
        # From before the day: what was moved out of a skipped hour may fall just into it.
        ticks = CronSim(window.cron, (begin - _NONE_LONGER).astimezone(ZoneInfo(window.time_zone)))
    except (CronSimError, KeyError, ValueError, OSError):
        return  # refused where windows are entered; here it opens once
    for tick in ticks:
        moment = tick.astimezone(UTC)
        if moment >= end:
            return
        if moment >= begin:
            yield moment
