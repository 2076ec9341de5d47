"""Counters in the admin: a list with values, rates and the last hour, and a page with a chart.

Names and labels came from outside: templates escape them, and `one_line` writes out the characters
that would change how other text reads.  A counter can be deleted, which is the way to make room;
one that is counted again begins anew.  Runs in request threads; holds no state.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from control.admin import ModelAdmin, display, register
from control.admin.charts import Series, TimeChart, sparkline
from control.admin.figures import NOTHING, ago, compact
from control.admin.inert import one_line
from control.ports.merging import MAX_TOTAL
from ingest.counters.history import (
    RATE_MINUTES,
    WINDOWS,
    History,
    Window,
    history,
    per_minute,
    sparks,
    window_of,
)
from ingest.counters.totals import OVERFLOW
from ingest.models import Counter, CounterPoint

NAME_SHOWN = 80
LABELS_SHOWN = 6
NO_POINTS = "Nothing was added in this window. Choose a longer one."


def labels_of(counter: Counter, *, shown: int | None = None) -> SafeString:
    """The labels as tags; beyond `shown` they are counted."""
    pairs = [
        (one_line(name, limit=NAME_SHOWN), one_line(str(value), limit=NAME_SHOWN))
        for name, value in sorted(counter.labels.items())
    ]
    tags = format_html_join(" ", '<span class="tag">{}={}</span>', pairs[:shown])
    more = len(pairs) - len(pairs[:shown])
    return format_html("{} +{}", tags, more) if more else tags


def value_text(value: int) -> str:
    return f"{value:,}"


def chart_of(past: History, window: Window) -> TimeChart:
    """What was added, a minute; what was taken away has a line of its own."""
    minutes = past.step_s / 60
    rates = [None if value is None else value / minutes for value in past.added]
    series = [
        Series(
            name="added",
            values=[None if rate is None else max(rate, 0.0) for rate in rates],
            area=True,
        )
    ]
    if any(rate is not None and rate < 0 for rate in rates):
        taken = [None if rate is None else max(-rate, 0.0) for rate in rates]
        series.append(Series(name="taken away", values=taken, colour=2))
    return TimeChart(
        key="counter",
        title="Added",
        unit="a minute, by time of arrival",
        ends_at=past.ends_at,
        step_s=past.step_s,
        series=series if past.recorded else (),
        tick_s=window.tick_s,
        empty=NO_POINTS,
        note="The last step is not over yet.",
    )


@register(Counter)
class CounterAdmin(ModelAdmin):
    list_display = ("what", "tenant_name", "total", "rate", "hour", "last")
    list_display_links = None
    search_fields = ("name", "tenant", "labels")
    search_help_text = "Name, tenant or label"
    ordering = ("tenant", "name", "key")
    show_full_result_count = False
    change_list_template = "admin/ingest/counter_list.html"
    change_form_template = "admin/ingest/counter_detail.html"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changes = super().get_changelist_instance(request)
        rows = list(changes.result_list)
        now = timezone.now()
        lines = sparks(rows, now=now)
        for row in rows:
            row.minutes, row.now = lines[row.key], now
        changes.result_list = rows
        return changes

    # --- columns: each row holds its figures ---------------------------------------------------

    @display(description="Counter", ordering="name")
    def what(self, row: Any) -> SafeString:
        return format_html(
            '<a class="target-name" href="{}">{}</a><small>{}</small>',
            reverse("admin:ingest_counter_change", args=[row.pk]),
            one_line(row.name, limit=NAME_SHOWN) or NOTHING,
            labels_of(row, shown=LABELS_SHOWN),
        )

    @display(description="Tenant", ordering="tenant")
    def tenant_name(self, row: Any) -> str:
        return one_line(row.tenant, limit=NAME_SHOWN)

    @display(description="Value", ordering="value")
    def total(self, row: Any) -> str:
        return value_text(row.value)

    @display(description="A minute, lately")
    def rate(self, row: Any) -> str:
        return compact(per_minute(row.minutes))

    @display(description="Last hour")
    def hour(self, row: Any) -> SafeString:
        name = one_line(row.name, limit=NAME_SHOWN)
        values = [None if value is None else max(value, 0.0) for value in row.minutes]
        return sparkline(values, label=f"What was added to {name} in the last hour")

    @display(description="Last increment", ordering="last_at")
    def last(self, row: Any) -> str:
        return ago(row.last_at, row.now)

    # --- the page of a counter -----------------------------------------------------------------

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> Any:
        counter = context.get("original")
        if counter is not None:
            context.update(self.page(counter, window_of(request.GET.get("window", ""))))
        return super().render_change_form(request, context, *args, **kwargs)

    def page(self, counter: Counter, window: Window) -> dict[str, Any]:
        now = timezone.now()
        past = history(counter, window, now=now)
        lately = per_minute(sparks([counter], now=now)[counter.key])
        listed = reverse("admin:ingest_counter_changelist")
        return {
            "counter": counter,
            "title": one_line(counter.name, limit=NAME_SHOWN) or "A counter without a name",
            "subtitle": None,
            "labels": labels_of(counter),
            "figures": [
                ("Value", value_text(counter.value)),
                (f"A minute, over the last {RATE_MINUTES}", compact(lately)),
                (f"In this window ({window.label.lower()})", compact(past.total)),
                ("Increments", value_text(counter.increments)),
                ("First increment", ago(counter.first_at, now)),
                ("Last increment", ago(counter.last_at, now)),
            ],
            "at_its_limit": abs(counter.value) >= MAX_TOTAL,
            "is_overflow": counter.name == OVERFLOW,
            "window": window,
            "windows": WINDOWS,
            "chart": chart_of(past, window),
            "same_name": f"{listed}?{urlencode({'q': counter.name}, errors='replace')}",
            "list_url": listed,
        }

    # --- making room ---------------------------------------------------------------------------

    def delete_model(self, request: HttpRequest, obj: Counter) -> None:
        self._delete([obj.key])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Counter]) -> None:
        self._delete(list(queryset.values_list("key", flat=True)))

    @staticmethod
    def _delete(keys: list[str]) -> None:
        """The counters first, as who adds to them does: two hands never wait in a circle."""
        counters = Counter.objects.filter(key__in=keys)
        with transaction.atomic(using=counters.db):
            counters.delete()
            CounterPoint.objects.filter(counter__in=keys).delete()
