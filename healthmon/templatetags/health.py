"""`{% load health %}`: statuses and latencies in templates; the work is in healthmon.admin."""

from __future__ import annotations

from datetime import datetime

from django import template
from django.utils.safestring import SafeString

from control.admin.figures import duration
from control.admin.inert import inert as made_inert
from healthmon.admin import statuses
from healthmon.admin.figures import latency_text, uptime_text

register = template.Library()

_OUTCOMES = {"ok": "up", "degraded": "degraded", "failed": "down", "void": "unknown"}

register.filter("latency", latency_text)
register.filter("uptime", uptime_text)


@register.filter
def inert(text: str | None) -> str:
    return made_inert(str(text or ""), limit=5_000)


@register.filter
def status_mark(status: str) -> SafeString:
    return statuses.mark(status)


@register.filter
def outcome_mark(outcome: str) -> SafeString:
    return statuses.mark(_OUTCOMES.get(outcome, "unknown"), word=outcome)


@register.filter
def since(then: datetime | None, now: datetime) -> str:
    return duration(max((now - then).total_seconds(), 0)) if then is not None else ""


@register.filter
def negated(value: float) -> float:
    return -value
