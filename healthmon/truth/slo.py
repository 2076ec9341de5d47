"""Objectives: the uptime aimed at, the error budget that is left, and how fast it burns.

The budget is the share of the objective's whole window that a target may be down; what is unknown
or excluded uses none of it.  A burn rate says how many times as fast as allowed it was used over
the last while: at 1 it lasts exactly for the window.  Two paces alert, each by a long window that
says it matters and a short one that says it goes on: 14.4 times over an hour (2 % of a budget of
30 days) and five minutes; 6 times over six hours (5 %) and half an hour.  An alert clears when its
long window has fallen below: one outage is one alert.

Control database; `judge_burns` is run by the one checker that keeps house, and its hooks are
called inside its transaction, as flip hooks are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from control.ports.registry import Registry
from healthmon.targets.models import Target
from healthmon.truth.machine import DOWN
from healthmon.truth.models import BurnAlert, Flip
from healthmon.truth.moments import us_of
from healthmon.truth.uptime import Stretch, Uptime, stretches, sums_between

HOUR = timedelta(hours=1)
_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    name: str
    factor: float
    long: timedelta
    short: timedelta


FAST = Pace(name="fast", factor=14.4, long=HOUR, short=timedelta(minutes=5))
SLOW = Pace(name="slow", factor=6.0, long=6 * HOUR, short=timedelta(minutes=30))
PACES = (FAST, SLOW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Where a target stands.  `achieved` is in percent, None while nothing is known."""

    percent: float
    achieved: float | None
    budget_s: float
    left_s: float
    burn_1h: float
    burn_6h: float
    burn_3d: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Burn:
    """A budget that burns too fast now; `burn` is the rate over the pace's long window."""

    target_id: int
    pace: str
    burn: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnEvent:
    """An alert that has just fired, or cleared."""

    alert: BurnAlert
    target: Target
    fired: bool


BurnHook: TypeAlias = "Callable[[Sequence[BurnEvent]], None]"

_hooks: Registry[BurnHook] = Registry(what="burn hook")


def register_burn_hook(hook: BurnHook, *, name: str = "") -> None:
    """Have `hook` called with alerts that fire or clear; the same name replaces."""
    _hooks.register(name or f"{hook.__module__}.{getattr(hook, '__qualname__', hook)}", hook)


def unregister_burn_hook(name: str) -> None:
    _hooks.unregister(name)


def objective(target_ids: Iterable[int], now: datetime) -> dict[int, Objective]:
    """For each of the targets that has one."""
    aims = _aims(Target.objects.filter(pk__in=list(target_ids)))
    if not aims:
        return {}
    longest = max(days for _, days in aims.values())
    found = stretches(aims, now - timedelta(days=max(longest, 3)), now)
    return {
        target_id: _objective(percent, days, found[target_id], now)
        for target_id, (percent, days) in aims.items()
        if target_id in found
    }


def burning(now: datetime) -> list[Burn]:
    """The budgets that burn too fast at this moment."""
    found: list[Burn] = []
    aims = _aims(_suspects(now))
    for target_id, percent, seen in _looked_at(aims, now):
        found.extend(
            Burn(target_id=target_id, pace=pace.name, burn=long)
            for pace in PACES
            for long, short in [_rates(pace, percent, seen, now)]
            if long >= pace.factor and short >= pace.factor
        )
    return found


def judge_burns(now: datetime | None = None) -> list[BurnEvent]:
    """Fire what burns and has not been told, clear what no longer does; tells the hooks."""
    at = now or timezone.now()
    with transaction.atomic():
        rows = BurnAlert.objects.select_for_update().filter(cleared_at=None).order_by("pk")
        standing = {(alert.target_id, alert.pace): alert for alert in rows}
        fresh = [
            BurnAlert(target_id=burn.target_id, pace=burn.pace, fired_at=at, burn=burn.burn)
            for burn in burning(at)
            if (burn.target_id, burn.pace) not in standing
        ]
        BurnAlert.objects.bulk_create(fresh)
        over = _over(standing, at)
        BurnAlert.objects.filter(pk__in=[alert.pk for alert in over]).update(cleared_at=at)
        for alert in over:
            alert.cleared_at = at
        targets = Target.objects.in_bulk({alert.target_id for alert in (*fresh, *over)})
        events = [
            BurnEvent(alert=alert, target=targets[alert.target_id], fired=alert.cleared_at is None)
            for alert in (*fresh, *over)
        ]
        if events:
            for hook in _hooks.values():
                hook(events)
    return events


def _over(standing: dict[tuple[int, str], BurnAlert], now: datetime) -> list[BurnAlert]:
    """The alerts whose long window has fallen below its factor, or whose objective is gone."""
    paces = {pace.name: pace for pace in PACES}
    aims = _aims(Target.objects.filter(pk__in={target_id for target_id, _ in standing}))
    above = {
        (target_id, pace.name)
        for target_id, percent, seen in _looked_at(aims, now)
        for pace in paces.values()
        if _rates(pace, percent, seen, now)[0] >= pace.factor
    }
    return [alert for key, alert in standing.items() if key not in above]


def _aims(targets: QuerySet[Target]) -> dict[int, tuple[float, int]]:
    rows = targets.exclude(slo_percent=None).order_by()
    fields = rows.values_list("pk", "slo_percent", "slo_days")
    return {pk: (percent, days) for pk, percent, days in fields if percent is not None}


def _suspects(now: datetime) -> QuerySet[Target]:
    """Targets that were down at some time of the longest of the paces' windows."""
    since = now - max(pace.long for pace in PACES)
    flips = Flip.objects.filter(target=OuterRef("pk"), at__gte=since).filter(
        Q(to_status=DOWN) | Q(from_status=DOWN)
    )
    return Target.objects.filter(Q(state__status=DOWN) | Exists(flips))


def _looked_at(
    aims: dict[int, tuple[float, int]], now: datetime
) -> Iterable[tuple[int, float, list[Stretch]]]:
    since = now - max(pace.long for pace in PACES)
    for target_id, seen in stretches(aims, since, now).items():
        yield target_id, aims[target_id][0], seen


def _rates(pace: Pace, percent: float, seen: list[Stretch], now: datetime) -> tuple[float, float]:
    return _burn(percent, seen, now, pace.long), _burn(percent, seen, now, pace.short)


def _burn(percent: float, seen: list[Stretch], now: datetime, span: timedelta) -> float:
    down_s = _last(seen, now, span).down_s
    return down_s / span.total_seconds() / _allowed(percent)


def _allowed(percent: float) -> float:
    return max(1.0 - percent / 100.0, 1e-9)


def _last(seen: list[Stretch], now: datetime, span: timedelta) -> Uptime:
    return sums_between(seen, us_of(now - span), us_of(now))


def _objective(percent: float, days: int, seen: list[Stretch], now: datetime) -> Objective:
    window = timedelta(days=days)
    total = _last(seen, now, window)
    budget_s = _allowed(percent) * window.total_seconds()
    return Objective(
        percent=percent,
        achieved=None if total.ratio is None else total.ratio * 100.0,
        budget_s=budget_s,
        left_s=budget_s - total.down_s,
        burn_1h=_burn(percent, seen, now, HOUR),
        burn_6h=_burn(percent, seen, now, 6 * HOUR),
        burn_3d=_burn(percent, seen, now, timedelta(days=3)),
    )
