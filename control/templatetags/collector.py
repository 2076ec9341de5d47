"""`{% load collector %}`: charts and figures in templates. Thin: the work is in control.admin."""

from __future__ import annotations

from datetime import datetime

from django import template
from django.utils import timezone
from django.utils.safestring import SafeString

from control.admin import charts, figures
from control.admin.paths import Values

register = template.Library()

register.filter("compact", figures.compact)
register.filter("duration", figures.duration)
register.filter("size", figures.size)
register.filter("percent", figures.percent)


@register.filter
def ago(then: datetime | None, now: datetime | None = None) -> str:
    return figures.ago(then, now or timezone.now())


@register.simple_tag
def time_chart(chart: charts.TimeChart) -> SafeString:
    return charts.render(chart)


@register.simple_tag
def sparkline(values: Values, label: str, colour: int = 1) -> SafeString:
    return charts.sparkline(values, label=label, colour=colour)
