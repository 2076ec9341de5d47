"""The live page: what each pipeline does now and did in the last minutes, and what was changed.

Problems first: why records are refused, with the remedy; then the figures of the moment, charts
over one time axis, who holds the queue, and the list of changes that the lines in the charts stand
for. Any member of the staff may see it; what was changed is for those who may see sinks. Runs in
request threads; holds no state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.http import urlencode
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from control.admin import links, livechanges, livecharts, overview
from control.admin.charts import TimeChart
from control.admin.figures import compact, duration, percent
from control.admin.ledger import LedgerView
from control.admin.livechanges import Numbered
from control.admin.livecharts import Frame
from control.admin.overview import Overview
from control.admin.pipelines import PipelineView
from control.admin.problems import of_pipeline
from control.admin.samples import Window
from control.ports.panels import Problem

REFRESH_S = 5
LIVE_VAR, SINK_VAR, MINUTES_VAR = "live", "sink", "minutes"
# Pipelines drawn in full at once; the others are a line with a link. A chart is not free.
MAX_DRAWN = 3
HOLDERS_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Span:
    """How far back the page looks, and how finely."""

    minutes: int
    step_s: float
    tick_s: float

    @property
    def words(self) -> str:
        return "this hour" if self.minutes == 60 else f"these {self.minutes} minutes"

    def window(self, now: datetime) -> Window:
        return Window.until(now, span=timedelta(minutes=self.minutes), step_s=self.step_s)


SPANS = (
    Span(minutes=5, step_s=5.0, tick_s=60.0),
    Span(minutes=15, step_s=10.0, tick_s=300.0),
    Span(minutes=60, step_s=30.0, tick_s=900.0),
)
DEFAULT_SPAN = SPANS[1]


@dataclass(frozen=True, kw_only=True)
class Figure:
    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A tenant, and its part of what is held."""

    tenant: str
    records: int
    share: float


@dataclass(kw_only=True)
class LivePipeline:
    """One pipeline as the page shows it; `drawn` ones with everything, others as a line."""

    view: PipelineView
    slug: str
    url: str
    choose: str
    drawn: bool = False
    problems: list[Problem] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    charts: list[TimeChart] = field(default_factory=list)
    holders: list[Holder] = field(default_factory=list)
    changes: list[Numbered] = field(default_factory=list)


@never_cache
@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """The whole page."""
    context = {**admin.site.each_context(request), "title": "Live", **live_context(request)}
    return TemplateResponse(request, "admin/live/index.html", context)


@never_cache
@require_safe
def panels(request: HttpRequest) -> HttpResponse:
    """The page's content alone, fetched again and again by the open page."""
    return TemplateResponse(request, "admin/live/panels.html", live_context(request))


def live_context(request: HttpRequest) -> dict[str, Any]:
    now = timezone.now()
    span = _span(request.GET.get(MINUTES_VAR, ""))
    seen = overview.build(now, window=span.window(now), fresh=True)
    asked = request.GET.get(SINK_VAR, "")
    chosen = next((one.key for one in seen.pipelines if one.key == asked), "")
    live = request.GET.get(LIVE_VAR) != "off"
    query = _Query(sink=chosen, minutes=span.minutes, live=live)
    changes = livechanges.of(seen, allows=request.user.has_perm)
    frame = Frame(window=seen.window, tick_s=span.tick_s, words=span.words)
    pipelines = [
        LivePipeline(
            view=view.working,
            slug=f"p{number}",
            url=links.sink_link(view.key) if not view.internal else "",
            choose=query.to(sink=view.key),
        )
        for number, view in enumerate(_in_order(seen.pipelines), 1)
    ]
    for one in _to_draw(pipelines, chosen):
        _draw(one, seen, frame, livechanges.for_pipeline(changes, one.view.key))
    return {
        "now": now,
        "live": live,
        "refresh_s": REFRESH_S,
        "fragment": query.to(),
        "toggle": query.to(live=not live),
        "spans": [(one, query.to(minutes=one.minutes), one is span) for one in SPANS],
        "pipelines": pipelines,
        "chosen": chosen,
        "all": query.to(sink=""),
        "alive": bool(seen.alive),
    }


@dataclass(frozen=True, kw_only=True)
class _Query:
    """The page's state as a query string."""

    sink: str
    minutes: int
    live: bool

    def to(self, **changed: Any) -> str:
        wanted = {"sink": self.sink, "minutes": self.minutes, "live": self.live, **changed}
        given = {
            SINK_VAR: wanted["sink"],
            MINUTES_VAR: "" if wanted["minutes"] == DEFAULT_SPAN.minutes else wanted["minutes"],
            LIVE_VAR: "" if wanted["live"] else "off",
        }
        said = urlencode({name: value for name, value in given.items() if value})
        return f"?{said}" if said else ""


def _span(text: str) -> Span:
    return next((one for one in SPANS if str(one.minutes) == text), DEFAULT_SPAN)


def _in_order(pipelines: list[PipelineView]) -> list[PipelineView]:
    """The operator's own first; the order never depends on load, so that nothing jumps about."""
    return sorted(pipelines, key=lambda one: (one.internal, not one.required, one.name))


def _to_draw(pipelines: list[LivePipeline], chosen: str) -> list[LivePipeline]:
    """The one that was chosen; else those in trouble, and the first of the others."""
    if chosen:
        return [one for one in pipelines if one.view.key == chosen]
    troubled = [one for one in pipelines if one.view.bad or one.view.refusing]
    others = [one for one in pipelines if one not in troubled and not one.view.internal]
    wanted = [*troubled, *others][:MAX_DRAWN]
    return [one for one in pipelines if one in wanted]


def _draw(one: LivePipeline, seen: Overview, frame: Frame, changes: list[Numbered]) -> None:
    view = one.view
    one.drawn = True
    one.problems = of_pipeline(view, seen)
    one.figures = figures_of(view)
    one.changes = changes[::-1]
    one.charts = livecharts.charts_of(
        view, prefix=one.slug, frame=frame, events=[change.event for change in changes]
    )
    one.holders = holders_of(view, seen.ledger)


def figures_of(view: PipelineView) -> list[Figure]:
    """The moment in figures."""
    history = view.history
    mean = history.latest_per_batch if history is not None else None
    shown = [
        Figure(label="In", value=compact(view.in_rate), note="records/s"),
        Figure(label="Stored", value=compact(view.out_rate), note="records/s"),
        Figure(label="Queue", value=percent(view.fill), note=_queue_note(view)),
        Figure(
            label="Workers",
            value=str(view.workers),
            note=f"{view.busy_workers} busy, {view.min_workers} to {view.max_workers}",
        ),
        Figure(
            label="Batch closes at",
            value=compact(view.batch_limit),
            note=f"records; {compact(mean)} in one of late" if mean else "records",
        ),
        Figure(label="Writes at once", value=str(view.write_limit), note="at most"),
        Figure(label="Write p95", value=duration(view.p95), note="per batch"),
        Figure(label="Refused", value=compact(view.refused_rate), note="requests/s"),
    ]
    if view.waiting_requests:
        shown.append(Figure(label="Waiting for room", value=compact(view.waiting_requests)))
    return shown


def _queue_note(view: PipelineView) -> str:
    oldest = f", oldest {duration(view.oldest_s)}" if view.held_records else ""
    return f"{compact(view.held_records)} records{oldest}"


def holders_of(view: PipelineView, ledger: list[LedgerView]) -> list[Holder]:
    """The tenants whose records wait, where there are several: those that hold the most."""
    own = next((one for one in ledger if one.sink in (view.key, view.name)), None)
    if own is None or len(own.by_tenant) < 2 or not own.in_flight:
        return []
    most = sorted(own.by_tenant.values(), key=lambda one: (-one.in_flight, one.name))
    return [
        Holder(tenant=one.name, records=one.in_flight, share=one.in_flight / own.in_flight)
        for one in most[:HOLDERS_SHOWN]
        if one.in_flight
    ]
