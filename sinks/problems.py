"""Problems that only the rows tell; what processes report is the dashboard's own.

Runs in request threads of the admin.
"""

from __future__ import annotations

from django.urls import NoReverseMatch, reverse

from control.ports.panels import Problem, register_problems
from sinks.configuration import build_sink
from sinks.models import SinkConfig
from sinks.registry import BackendError


def register() -> None:
    """Put the problems on the dashboard."""
    register_problems(found, name="sinks")


def found() -> list[Problem]:
    """No sink at all, and what the enabled sinks say of their own options."""
    rows = list(SinkConfig.objects.filter(enabled=True))
    if not rows:
        return [
            Problem(
                severity="error",
                title="No sink is enabled",
                cause="There is nowhere to store records, so every request is refused with 503.",
                remedy="Add a sink, or enable one.",
                url=_url("admin:sinks_sinkconfig_changelist"),
            )
        ]
    problems = []
    if not any(row.required for row in rows):
        problems.append(
            Problem(
                severity="warning",
                title="No sink is required",
                cause="Every sink may drop records when it is full, so an acknowledged record "
                "may be stored nowhere.",
                remedy="Make the sink that must have every record required.",
                url=_url("admin:sinks_sinkconfig_changelist"),
            )
        )
    for row in rows:
        problems += [
            Problem(
                severity="warning",
                title=f"Sink {row.name}: a risk in its options",
                cause=text,
                remedy="Change the options, or accept what they mean.",
                url=_url("admin:sinks_sinkconfig_change", row.pk),
            )
            for text in _checks(row)
        ]
    return problems


def _checks(row: SinkConfig) -> list[str]:
    try:
        return build_sink(row).checks()
    except BackendError:
        return []  # its pipeline reports itself misconfigured


def _url(name: str, *args: object) -> str:
    try:
        return reverse(name, args=[str(arg) for arg in args])
    except NoReverseMatch:
        return ""
