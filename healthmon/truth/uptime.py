"""Uptime, exact: for how long each target had which status, by its flips alone.

Reads the control database, two queries whatever the number of targets.  What is down counts
against a target; degraded counts for it, as it answers.  Unknown counts neither way; time in
maintenance, paused, or before the first result is excluded, which is the same for the ratio but
told apart.  Times are UTC, days those of UTC.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta

import msgspec
from django.db.models import OuterRef, Subquery

from healthmon.targets.models import Target
from healthmon.truth.machine import DEGRADED, DOWN, MAINTENANCE, NEW, PAUSED, UNKNOWN, UP
from healthmon.truth.models import Flip
from healthmon.truth.moments import EPOCH, us_of

_DAY_US = 86_400_000_000
_EXCLUDED = (MAINTENANCE, PAUSED, NEW)
# A day is called after the worst that it had; what says nothing of the target only when all did.
_WORST_FIRST = (DOWN, DEGRADED, UP, UNKNOWN, MAINTENANCE, PAUSED, NEW)
_CHUNK = 500


class Stretch(msgspec.Struct, frozen=True, gc=False):
    """A time with one status, in microseconds since 1970; `end_us` belongs to the next."""

    start_us: int
    end_us: int
    status: str


class Uptime(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Seconds of a window by status; they add up to the window."""

    up_s: float = 0.0
    degraded_s: float = 0.0
    down_s: float = 0.0
    unknown_s: float = 0.0
    excluded_s: float = 0.0

    @property
    def known_s(self) -> float:
        return self.up_s + self.degraded_s + self.down_s

    @property
    def ratio(self) -> float | None:
        """From 0 to 1; None when nothing is known of the window."""
        known_s = self.known_s
        return (self.up_s + self.degraded_s) / known_s if known_s else None


class Day(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One day of a ribbon.  `status` is the worst of the day."""

    date: date
    status: str
    ratio: float | None
    down_s: float


def uptime(target_ids: Iterable[int], start: datetime, end: datetime) -> dict[int, Uptime]:
    """For every target that exists."""
    return {
        target_id: _uptime(_sums(found))
        for target_id, found in stretches(target_ids, start, end).items()
    }


def ribbon(target_ids: Iterable[int], *, days: int = 90, now: datetime) -> dict[int, list[Day]]:
    """The last `days` days with today's, the oldest first; today ends now."""
    today = now.astimezone(UTC).date()
    first = today - timedelta(days=days - 1)
    start = datetime.combine(first, time(), UTC)
    dates = [first + timedelta(days=offset) for offset in range(days)]
    return {
        target_id: [
            _day(day, sums) for day, sums in zip(dates, _by_day(found, start, days), strict=True)
        ]
        for target_id, found in stretches(target_ids, start, now).items()
    }


def stretches(
    target_ids: Iterable[int], start: datetime, end: datetime
) -> dict[int, list[Stretch]]:
    """What each target was from `start` to before `end`, without a gap."""
    ids = sorted(set(target_ids))
    found: dict[int, list[Stretch]] = {}
    for at in range(0, len(ids), _CHUNK):
        found |= _stretches(ids[at : at + _CHUNK], start, end)
    return found


def sums_between(found: Iterable[Stretch], start_us: int, end_us: int) -> Uptime:
    """What of these stretches lies in a part of their window."""
    return _uptime(_sums(_cut(found, start_us, end_us)))


def _stretches(ids: list[int], start: datetime, end: datetime) -> dict[int, list[Stretch]]:
    flips: dict[int, list[tuple[int, str]]] = {}
    rows = Flip.objects.filter(target__in=ids, at__gt=start, at__lt=end).order_by("at", "seq")
    for target_id, at, status in rows.values_list("target_id", "at", "to_status"):
        flips.setdefault(target_id, []).append((us_of(at), status))
    start_us, end_us = us_of(start), max(us_of(end), us_of(start))
    return {
        target_id: list(_walk(status, flips.get(target_id, ()), start_us, end_us))
        for target_id, status in _statuses_at(ids, start).items()
    }


def _statuses_at(ids: Collection[int], start: datetime) -> dict[int, str]:
    """By the last flip up to then; else by what the next one left; else it has always been so."""
    flips = Flip.objects.filter(target=OuterRef("pk"))
    before = flips.filter(at__lte=start).order_by("-at", "-seq").values("to_status")[:1]
    after = flips.filter(at__gt=start).order_by("at", "seq").values("from_status")[:1]
    rows = Target.objects.filter(pk__in=ids).order_by()
    return {
        target_id: last or following or ever or NEW
        for target_id, last, following, ever in rows.values_list(
            "pk", Subquery(before), Subquery(after), "state__status"
        )
    }


def _walk(
    status: str, flips: Iterable[tuple[int, str]], start_us: int, end_us: int
) -> Iterator[Stretch]:
    since_us = start_us
    for at_us, following in flips:
        if following != status:
            if at_us > since_us:
                yield Stretch(since_us, at_us, status)
            since_us, status = at_us, following
    if end_us > since_us:
        yield Stretch(since_us, end_us, status)


def _cut(found: Iterable[Stretch], start_us: int, end_us: int) -> Iterator[Stretch]:
    for one in found:
        begin, end = max(one.start_us, start_us), min(one.end_us, end_us)
        if begin < end:
            yield Stretch(begin, end, one.status)


def _sums(found: Iterable[Stretch]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for one in found:
        sums[one.status] = sums.get(one.status, 0) + one.end_us - one.start_us
    return sums


def _uptime(sums: dict[str, int]) -> Uptime:
    return Uptime(
        up_s=sums.get(UP, 0) / 1e6,
        degraded_s=sums.get(DEGRADED, 0) / 1e6,
        down_s=sums.get(DOWN, 0) / 1e6,
        unknown_s=sums.get(UNKNOWN, 0) / 1e6,
        excluded_s=sum(sums.get(status, 0) for status in _EXCLUDED) / 1e6,
    )


def _by_day(found: Iterable[Stretch], start: datetime, days: int) -> list[dict[str, int]]:
    """Microseconds by status for each day from `start`, which is a midnight of UTC."""
    first = (start - EPOCH).days
    sums: list[dict[str, int]] = [{} for _ in range(days)]
    for one in found:
        begin_us = one.start_us
        while begin_us < one.end_us:
            day = begin_us // _DAY_US
            end_us = min(one.end_us, (day + 1) * _DAY_US)
            of_day = sums[day - first]
            of_day[one.status] = of_day.get(one.status, 0) + end_us - begin_us
            begin_us = end_us
    return sums


def _day(day: date, sums: dict[str, int]) -> Day:
    # Made by the thousand for a page of ribbons.
    down_us = sums.get(DOWN, 0)
    good_us = sums.get(UP, 0) + sums.get(DEGRADED, 0)
    known_us = good_us + down_us
    ratio = good_us / known_us if known_us else None
    for status in _WORST_FIRST:
        if status in sums:
            return Day(date=day, status=status, ratio=ratio, down_s=down_us / 1e6)
    return Day(date=day, status=NEW, ratio=None, down_s=0.0)
