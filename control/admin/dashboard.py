"""The operations dashboard: its own panels, and the page that is made of everyone's.

Panels come from `control.ports.panels`; those here tell of processes and pipelines, and other apps
add theirs. All are drawn in the request's thread from one overview; a panel that fails says so in
its place and takes no other with it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import mark_safe

from control.admin import links
from control.admin import problems as own_problems
from control.admin.logs import totals
from control.admin.overview import Overview, overview_for
from control.admin.trends import trend_charts
from control.ports import panels as ports

logger = logging.getLogger(__name__)

LIVE_VAR = "live"
REFRESH_S = 5


class TemplatePanel:
    """A panel whose body is one template, with the overview at hand."""

    name: str
    order: int
    title: str
    template: str

    def context(self, overview: Overview) -> dict[str, Any]:
        return {}

    def render(self, request: HttpRequest) -> str:
        overview = overview_for(request)
        context = {"overview": overview, "now": overview.now, **self.context(overview)}
        return render_to_string(self.template, context, request)


class ProblemsPanel(TemplatePanel):
    name, order, title = "problems", 0, "Problems"
    template = "admin/dashboard/problems.html"

    def context(self, overview: Overview) -> dict[str, Any]:
        return {"problems": all_problems(overview)}


class FiguresPanel(TemplatePanel):
    name, order, title = "figures", 10, "Now"
    template = "admin/dashboard/figures.html"

    def context(self, overview: Overview) -> dict[str, Any]:
        return {"figures": figures_of(overview)}


class TrendsPanel(TemplatePanel):
    name, order, title = "trends", 20, "Last 15 minutes"
    template = "admin/dashboard/trends.html"

    def context(self, overview: Overview) -> dict[str, Any]:
        return {"charts": trend_charts(overview)}


class PipelinesPanel(TemplatePanel):
    name, order, title = "pipelines", 30, "Pipelines"
    template = "admin/dashboard/pipelines.html"

    def context(self, overview: Overview) -> dict[str, Any]:
        rows = [(one, links.sink_link(one.key)) for one in overview.pipelines]
        return {"rows": rows, "add_url": links.link("admin:sinks_sinkconfig_add")}


class LogPanel(TemplatePanel):
    name, order, title = "log", 35, "Log"
    template = "admin/dashboard/log.html"

    def context(self, overview: Overview) -> dict[str, Any]:
        return {"log": totals(overview.logs), "url": links.link("admin:log")}


class LedgerPanel(TemplatePanel):
    name, order, title = "ledger", 40, "Ledger"
    template = "admin/dashboard/ledger.html"


class ProcessesPanel(TemplatePanel):
    name, order, title = "processes", 50, "Processes"
    template = "admin/dashboard/processes.html"


OWN_PANELS: tuple[type[TemplatePanel], ...] = (
    ProblemsPanel,
    FiguresPanel,
    TrendsPanel,
    PipelinesPanel,
    LogPanel,
    LedgerPanel,
    ProcessesPanel,
)


def register_panels() -> None:
    for panel in OWN_PANELS:
        ports.register_panel(panel())


def all_problems(overview: Overview) -> list[ports.Problem]:
    """The figures' problems and those that other rooms report, the gravest first."""
    rank = {"error": 0, "warning": 1, "info": 2}
    both = [*own_problems.found(overview), *ports.problems()]
    return sorted(both, key=lambda problem: rank.get(problem.severity, 3))


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One large figure: what it is, how much, in what unit, and a word on it."""

    label: str
    value: float | None
    unit: str = ""
    note: str = ""


def figures_of(overview: Overview) -> list[Figure]:
    pipelines = overview.pipelines
    rates_in = [one.in_rate for one in pipelines if one.in_rate is not None]
    rates_out = [one.out_rate for one in pipelines if one.out_rate is not None]
    workers = sum(one.workers for one in pipelines)
    busy = sum(one.busy_workers for one in pipelines)
    dead = sum(one.dead_lettered for one in overview.ledger)
    dropped = sum(one.dropped for one in overview.ledger)
    return [
        Figure(label="In", value=max(rates_in, default=None), unit="records/s"),
        Figure(
            label="Stored" if len(pipelines) < 2 else "Stored, all sinks",
            value=sum(rates_out) if rates_out else None,
            unit="records/s",
        ),
        Figure(
            label="Waiting",
            value=sum(one.held_records for one in pipelines),
            unit="records",
        ),
        Figure(label="Workers", value=workers, note=f"{busy} busy"),
        Figure(label="Dead-lettered", value=dead, unit="records"),
        Figure(label="Dropped", value=dropped, unit="records"),
        Figure(label="Processes", value=len(overview.alive), note="alive"),
    ]


def drawn_panels(request: HttpRequest) -> list[dict[str, Any]]:
    drawn = []
    for panel in ports.panels():
        try:
            body = mark_safe(panel.render(request))  # noqa: S308 - panels answer safe HTML
        except Exception as error:
            logger.exception("panel could not be drawn", extra={"panel": panel.name})
            body = format_html(
                '<p class="notice notice-warning">This panel could not be drawn ({}). '
                "The process's log has the traceback.</p>",
                type(error).__name__,
            )
        drawn.append({"name": panel.name, "title": panel.title, "body": body})
    return drawn


def dashboard_context(request: HttpRequest) -> dict[str, Any]:
    overview = overview_for(request)
    live = request.GET.get(LIVE_VAR) != "off"
    panels = drawn_panels(request)
    return {
        "panels": panels,
        "overview": overview,
        "now": overview.now,
        "live": live,
        "refresh_s": REFRESH_S,
        "first_steps": overview.accepted_ever == 0,
        "origin": f"{request.scheme}://{request.get_host()}",
    }
