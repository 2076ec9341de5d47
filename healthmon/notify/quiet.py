"""Quiet hours of a rule: from one local time to another, each day, across midnight too.

Where the clocks change, hours that come twice are quiet both times, and a limit that does not
exist that night is moved as far as the clocks are.  Pure functions.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

_DAY = timedelta(days=1)


def quiet_until(
    now: datetime, *, begins: time | None, ends: time | None, time_zone: str
) -> datetime | None:
    """When the quiet hours that hold now are over; None when none do."""
    if begins is None or ends is None or begins == ends:
        return None
    zone = _zone(time_zone)
    today = now.astimezone(zone).date()
    for day in (today - _DAY, today):
        start = datetime.combine(day, begins, zone).astimezone(UTC)
        last_day = day if begins < ends else day + _DAY
        end = max(
            datetime.combine(last_day, ends, zone).replace(fold=fold).astimezone(UTC)
            for fold in (0, 1)
        )
        if start <= now < end:
            return end
    return None


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return ZoneInfo("UTC")  # refused when it is saved; this system may know fewer
