"""The list of targets: problems first, a hundred a page, a fixed number of queries.

Figures are asked for the page's rows alone, in one question each.  Runs in request threads.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from control.admin import ModelAdmin, display
from control.admin.figures import NOTHING, ago, duration
from control.admin.inert import one_line
from healthmon.admin import charts, measures, statuses
from healthmon.admin.figures import latency_text, seconds_text, uptime_text
from healthmon.admin.filters import FILTERS
from healthmon.heartbeats.models import Heartbeat
from healthmon.probes.registry import kind_names
from healthmon.targets.models import Target
from healthmon.targets.phase import next_on_grid

PAGE = 100
TAGS_SHOWN = 4
ADDRESS_SHOWN = 60


def overview_url(target_id: int) -> str:
    return reverse("admin:healthmon_target_overview", args=[target_id])


class TargetList(ModelAdmin):
    """The list half of the targets' admin."""

    list_display = (
        "what",
        "status_mark",
        "latency",
        "up",
        "probes",
        "belongs",
    )
    list_display_links = None
    list_filter = FILTERS
    search_fields = ("name", "address")
    search_help_text = "Name or address"
    list_per_page = PAGE
    list_max_show_all = PAGE
    show_full_result_count = False
    list_select_related = ("group", "state", "heartbeat")
    change_list_template = "admin/healthmon/target/change_list.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Target]:
        queryset: QuerySet[Target] = super().get_queryset(request)
        return queryset.alias(rank=statuses.rank())

    def get_ordering(self, request: HttpRequest) -> Any:
        return (statuses.rank().asc(), "name")

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changes = super().get_changelist_instance(request)
        if request.method == "GET":
            rows = list(changes.result_list.prefetch_related("tags"))
            _measure(rows, timezone.now())
            changes.result_list = rows
        return changes

    # --- columns: each row holds its figures, as columns are not told the request --------------

    @display(description="Target", ordering="name")
    def what(self, row: Any) -> SafeString:
        return format_html(
            '<a class="target-name" href="{}">{}</a><small>{} · {}</small>',
            row.url,
            one_line(row.name, limit=80),
            row.kind_label,
            one_line(row.address, limit=ADDRESS_SHOWN) or NOTHING,
        )

    @display(description="Status", ordering="rank")
    def status_mark(self, row: Any) -> SafeString:
        told = row.shown
        since = f"for {duration((row.now - told.since).total_seconds())}" if told.since else ""
        return format_html(
            '<span title="{}">{}</span><small>{}</small>',
            one_line(told.reason, limit=300),
            statuses.mark(told.status, flapping=told.flapping),
            since,
        )

    @display(description="Latency, last hour")
    def latency(self, row: Any) -> SafeString:
        name = one_line(row.name, limit=80)
        line = charts.sparkline(row.spark, label=f"Latency of {name} in the last hour")
        # How long it took to take a ping in says nothing of the job that sent it.
        words = (
            "" if row.passive else format_html("<small>p95 {}</small>", latency_text(row.p95_ms))
        )
        return format_html('<span class="cell-line">{}</span>{}', line, words)

    @display(description="Up in 24 h, 30 d")
    def up(self, row: Any) -> SafeString:
        return format_html("{}<small>{}</small>", uptime_text(row.day), uptime_text(row.month))

    @display(description="Last / next probe")
    def probes(self, row: Any) -> SafeString:
        return format_html("{}<small>{}</small>", row.last_text, row.next_text)

    @display(description="Group, tags", ordering="group__name")
    def belongs(self, row: Any) -> SafeString:
        names = [tag.name for tag in row.tags.all()]
        shown = format_html_join(
            " ", '<span class="tag">{}</span>', ((name,) for name in names[:TAGS_SHOWN])
        )
        more = format_html(" +{}", len(names) - TAGS_SHOWN) if len(names) > TAGS_SHOWN else ""
        group = mark_safe("")
        if row.group is not None:
            group = format_html('<span class="group-name">{}</span> ', row.group.name)
        return format_html("{}{}{}", group, shown, more)


def _measure(rows: list[Any], now: datetime) -> None:
    """Give every row of a page what its columns show."""
    watching = statuses.watch(now)
    found = measures.of_page([row.pk for row in rows], now)
    kinds = dict(kind_names())
    pattern = overview_url(0)  # asked once: a page has a hundred of them
    for row in rows:
        row.url = pattern.replace("/0/", f"/{row.pk}/")
        kind = kinds.get(row.kind)
        percentiles = found.latency.get(row.pk)
        row.now = now
        row.kind_label = kind.label if kind is not None else row.kind
        row.shown = statuses.shown(row, watching)
        row.passive = passive = kind is not None and kind.probe is None
        row.spark = [] if passive else found.sparklines.get(row.pk, [])
        row.p95_ms = percentiles.p95 if percentiles is not None else None
        row.day = _ratio(found.day.get(row.pk))
        row.month = _ratio(found.month.get(row.pk))
        newest = found.newest.get(row.pk)
        row.last_at = newest.timestamp if newest is not None else None
        if passive:
            row.last_at = _last_ping(row)
        row.last_text = ago(row.last_at, now)
        row.next_text = next_text(row, watching, now, passive=passive)


def next_text(target: Target, watching: statuses.Watch, now: datetime, *, passive: bool) -> str:
    """When the next probe is due, as every checker works it out."""
    if target.paused:
        return "paused"
    if passive:
        return expected_text(target)
    if not watching.watches(target):
        return "no checker"
    at = next_on_grid(target.pk, target.interval_s, now.timestamp())
    return f"in {duration(max(at - now.timestamp(), 1.0))}"


def expected_text(target: Target) -> str:
    """When a passive target's pings are to come."""
    cron = str(target.options.get("cron") or "")
    if not cron:
        return f"every {seconds_text(target.interval_s)}"
    return one_line(f"at {cron} {target.options.get('time_zone') or 'UTC'}", limit=80)


def _last_ping(target: Target) -> datetime | None:
    try:
        return target.heartbeat.last_ping_at
    except Heartbeat.DoesNotExist:
        return None


def _ratio(uptime: Any) -> float | None:
    return uptime.ratio if uptime is not None else None
