"""The face of jobs, `/admin/jobs/`: what is wrong, how many are what, the last hour, who does it.

Nothing is counted in the table of jobs, so that it opens as fast with a million finished ones.
Runs in request threads; holds no state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone

from control.ports.panels import register_panel
from jobs.admin import counting, held, minutes, problems, runners
from jobs.admin.counting import Counts
from jobs.admin.held import HeldJob
from jobs.admin.minutes import Hour, TypeHour
from jobs.admin.runners import Health, ShownRunner
from jobs.bulk.models import BulkAction
from jobs.states import DEAD, QUEUED, RUNNING, SCHEDULED, STATES
from jobs.types import catalogue
from jobs.types.models import DownstreamService, JobType

REFRESH_S = 5
TYPES_SHOWN = 100
PANEL_TYPES = 3
_DOTS = {
    "broken": "bad", "disabled": "idle", "failing": "warn", "held": "bad", "delayed": "warn",
    "well": "good",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TypeRow:
    """A type as the table shows it."""

    type: JobType
    hour: TypeHour
    queued: int
    scheduled: int
    running: int
    dead: int
    broken: str
    held: str = ""  # what keeps its jobs, if anything does
    unusable: bool = False  # and it does until somebody corrects it

    @property
    def word(self) -> str:
        if self.broken:
            return "broken"
        if not self.type.enabled:
            return "disabled"
        if self.failing:
            return "failing"
        if self.unusable:
            return "held"
        return "delayed" if self.held else "well"

    @property
    def dot(self) -> str:
        return _DOTS[self.word]

    @property
    def failing(self) -> bool:
        return bool(self.hour.dead or self.broken)

    @property
    def rank(self) -> tuple[Any, ...]:
        busy = self.queued + self.scheduled + self.running
        return (
            not self.broken,
            not self.unusable,
            -self.hour.dead,
            not self.held,
            not busy,
            -self.hour.ended,
            self.type.name,
        )


@dataclass(frozen=True, kw_only=True)
class DownstreamRow:
    service: DownstreamService
    health: Health | None
    unusable: str = ""

    @property
    def rank(self) -> tuple[Any, ...]:
        health = self.health
        if self.unusable:
            return (-1, 0.0, self.service.name)
        if health is None:
            return (2, 0.0, self.service.name)
        return (0 if health.troubled else 1, -(health.failed_share or 0.0), self.service.name)


def type_rows(
    counts: Counts,
    hour: Hour,
    shown: Sequence[ShownRunner] = (),
    waiting: Sequence[HeldJob] = (),
) -> list[TypeRow]:
    """Failing types first, then those that have something to do."""
    by_type = hour.by_type()
    broken = catalogue.current().broken
    health = runners.downstreams(shown)
    rows = [
        TypeRow(
            type=one,
            hour=by_type.get(one.pk, TypeHour()),
            queued=counts.of(QUEUED, one.pk),
            scheduled=counts.of(SCHEDULED, one.pk),
            running=counts.of(RUNNING, one.pk),
            dead=counts.of(DEAD, one.pk),
            broken=broken.get(f"type {one.name}", ""),
            held=_held(one, counts, health, waiting),
            unusable=any(job.unusable for job in waiting if job.type_id == one.pk),
        )
        for one in JobType.objects.all()
    ]
    return sorted(rows, key=lambda row: row.rank)


def _held(
    row: JobType, counts: Counts, health: Mapping[str, Health], waiting: Sequence[HeldJob]
) -> str:
    """What keeps the type's jobs though nothing failed: a service, its breaker, its own limit."""
    mine = [one for one in waiting if one.type_id == row.pk]
    more = "+" if len(waiting) >= held.EXAMINED else ""
    said = []
    for service in dict.fromkeys(one.service for one in mine):
        of = [one for one in mine if one.service == service]
        why = "cannot be called" if of[0].unusable else "is not called now"
        said.append(f"{service} {why}: {len(of):,}{more} wait")
    spec = catalogue.current().types.get(row.pk)
    open_jobs = counts.open(row.pk)
    for step in spec.steps if spec is not None and open_jobs else ():
        name = step.downstream.name if step.downstream is not None else ""
        known = any(one.service == name for one in mine)
        if name and not known and name in health and health[name].troubled:
            said.append(f"the breaker of {name} is {health[name].breaker.replace('_', '-')}")
    queued = counts.of(QUEUED, row.pk)
    if queued and row.max_concurrent and counts.of(RUNNING, row.pk) >= row.max_concurrent:
        said.append(f"{queued:,} wait: at most {row.max_concurrent:,} at once")
    elif row.rate_per_s and queued > row.rate_per_s:
        said.append(f"{queued:,} wait: at most {row.rate_per_s:g} a second")
    return "; ".join(dict.fromkeys(said))


def downstream_rows(
    shown: Sequence[ShownRunner], waiting: Sequence[HeldJob] = ()
) -> list[DownstreamRow]:
    """Every service that is configured; those whose breaker is not closed first."""
    health = runners.downstreams(shown)
    unusable = held.unusable(waiting)
    rows = [
        DownstreamRow(
            service=one,
            health=health.get(one.name),
            unusable=unusable[one.name][0].why if one.name in unusable else "",
        )
        for one in DownstreamService.objects.all()
    ]
    return sorted(rows, key=lambda row: row.rank)


def state_counts(counts: Counts) -> list[tuple[str, int, str]]:
    by_state = counts.by_state
    return [(state, by_state[state], problems.jobs_url(state=state)) for state in STATES]


def board_context(request: HttpRequest) -> dict[str, Any]:
    now = timezone.now()
    live = request.GET.get("live") != "off"
    if not request.user.has_perm("jobs.view_job") and not request.user.has_perm("jobs.change_job"):
        return {"may_view": False, "now": now, "live": False}
    counts = counting.counts()
    hour = Hour(now, counts)
    shown = runners.runners(now)
    waiting = held.held()
    types = type_rows(counts, hour, shown, waiting)
    return {
        "may_view": True,
        "now": now,
        "live": live,
        "refresh_s": REFRESH_S,
        "problems": problems.of(counts, shown, now, waiting),
        "states": state_counts(counts),
        "charts": minutes.charts(hour),
        "types": types[:TYPES_SHOWN],
        "more_types": max(0, len(types) - TYPES_SHOWN),
        "downstreams": downstream_rows(shown, waiting),
        "alive": sum(one.alive for one in shown),
        "runners": shown,
        "bulk_actions": BulkAction.objects.filter(finished_at=None).order_by("-pk")[:10],
        "total": counts.total,
        "origin": f"{request.scheme}://{request.get_host()}",
    }


def fragment(request: HttpRequest) -> HttpResponse:
    """The page's content alone, fetched again and again by the open page."""
    return TemplateResponse(request, "admin/jobs/board.html", board_context(request))


class JobsPanel:
    """Jobs on the dashboard: how many are what, and the types that fail."""

    name, order, title = "jobs", 17, "Jobs"

    def render(self, request: HttpRequest) -> str:
        now: datetime = timezone.now()
        counts = counting.counts()
        shown = runners.runners(now)
        context: dict[str, Any] = {
            "now": now,
            "total": counts.total,
            "states": [one for one in state_counts(counts) if one[1]],
            "alive": sum(one.alive for one in shown),
            "failing": [],
            "board": reverse("admin:app_list", args=["jobs"]),
        }
        if counts.total:
            rows = type_rows(counts, Hour(now, counts))
            context["failing"] = [row for row in rows if row.failing][:PANEL_TYPES]
        return render_to_string("admin/jobs/panel.html", context, request)


def register() -> None:
    register_panel(JobsPanel())
