"""Health on the dashboard: how many targets are what, the worst of them, and who looks.

Runs in request threads; a fixed number of queries.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import F
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils import timezone

from control.ports.panels import register_panel
from healthmon.admin import statuses
from healthmon.admin.targetlist import overview_url
from healthmon.leases.models import Checker, ProbeSlot
from healthmon.targets.models import SLOTS, Target

WORST_SHOWN = 10
ENDED_SHOWN = timedelta(hours=1)


class HealthPanel:
    """Nothing is shown of health while nothing is watched, but how to begin."""

    name, order, title = "health", 15, "Health"

    def render(self, request: HttpRequest) -> str:
        return render_to_string("admin/healthmon/panel.html", context(), request)


def context() -> dict[str, Any]:
    now = timezone.now()
    watching = statuses.watch(now)
    counts = statuses.counts(watching)
    return {
        "now": now,
        "total": sum(counts.values()),
        "counts": [(status, count) for status, count in counts.items() if count],
        "worst": worst(watching),
        "checkers": checkers(),
    }


def worst(watching: statuses.Watch) -> list[dict[str, Any]]:
    """The ten that are worst: down before degraded before unknown, the newest first."""
    bad = (
        statuses.having("down", watching)
        | statuses.having("degraded", watching)
        | statuses.having("unknown", watching)
    )
    rows = (
        Target.objects.filter(bad)
        .alias(rank=statuses.rank())
        .select_related("state")
        .order_by("rank", F("state__since").desc(nulls_last=True))[:WORST_SHOWN]
    )
    return [
        {"target": row, "url": overview_url(row.pk), "shown": statuses.shown(row, watching)}
        for row in rows
    ]


def checkers() -> list[dict[str, Any]]:
    """The living checkers with their share of the slots, and those that ended lately."""
    now = timezone.now()
    holders: dict[str, int] = {}
    for holder in ProbeSlot.objects.filter(expires_at__gte=now).values_list("holder", flat=True):
        holders[holder] = holders.get(holder, 0) + 1
    rows = Checker.objects.filter(expires_at__gte=now - ENDED_SHOWN).order_by("-expires_at")[:10]
    return [
        {
            "checker": row,
            "alive": row.expires_at >= now,
            "slots": holders.get(row.pk, 0),
            "share": holders.get(row.pk, 0) / SLOTS,
        }
        for row in rows
    ]


def register() -> None:
    register_panel(HealthPanel())
