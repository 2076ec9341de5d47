"""System checks of jobs: what the settings allow can be used, and so can what is configured.

The second asks the control database and imports handlers: it runs where a database is named, as in
`manage.py check --database default`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import Error as DatabaseProblem

from control.outbound.policy import PolicyError
from jobs.webhooks.policy import policy

_PATTERN = re.compile(r"[A-Za-z*][A-Za-z0-9_*]*(\.[A-Za-z_*][A-Za-z0-9_*]*)*")
_HANDLERS = "jobs.handlers (COLLECTOR_JOBS_HANDLERS)"


@register
def check_handlers(**_: Any) -> list[CheckMessage]:
    """The patterns of functions that steps may run are patterns, and say what they allow."""
    found: list[CheckMessage] = []
    for pattern in settings.COLLECTOR.jobs.handlers:
        if not _PATTERN.fullmatch(pattern.strip()):
            found.append(
                Error(
                    f"{pattern!r} is no dotted path of functions that steps of jobs may run.",
                    hint=f"Write {_HANDLERS} like mypackage.handlers.*; a * stands for any name.",
                    id="jobs.E001",
                )
            )
        elif pattern.strip().startswith("*"):
            found.append(
                Warning(
                    f"{pattern!r} lets steps of jobs run functions of any Python module: whoever "
                    "may edit job types may do anything that this process may.",
                    hint=f"Name your own packages in {_HANDLERS}.",
                    id="jobs.W001",
                )
            )
    return found


@register
def check_networks(**_: Any) -> list[CheckMessage]:
    """The networks that calls and webhooks may and may not go to are networks."""
    try:
        policy()
    except PolicyError as error:
        return [
            Error(
                str(error),
                hint="Write networks as CIDR, such as 10.0.0.0/8, in jobs.allow and jobs.deny "
                "(COLLECTOR_JOBS_ALLOW, COLLECTOR_JOBS_DENY).",
                id="jobs.E002",
            )
        ]
    return []


@register(Tags.database)
def check_configured(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """The types, downstream services and schedules that are configured can be used."""
    if "default" not in (databases or ()):
        return []
    try:
        return _configured()
    except DatabaseProblem:
        return []  # tables that are not there yet; an unreachable database is told elsewhere


def _configured() -> list[CheckMessage]:
    from jobs.schedules.problems import schedule_problems
    from jobs.types import catalogue
    from jobs.types.models import DownstreamService, JobSchedule, JobType
    from jobs.types.problems import downstream_problems, step_problems, type_problems

    broken = catalogue.load().broken
    found = [_told(what, why, "jobs.W010") for what, why in sorted(broken.items())]
    for service in DownstreamService.objects.all():
        for field, why in downstream_problems(service).items():
            found.append(_told(f"downstream {service.name}", f"{field}: {why}", "jobs.W011"))
    for row in JobType.objects.prefetch_related("steps"):
        if f"type {row.name}" in broken:
            continue
        steps = list(row.steps.all())
        for field, why in type_problems(row, steps).items():
            found.append(_told(f"type {row.name}", f"{field} {why}".strip(), "jobs.W012"))
        for step in steps:
            for field, why in step_problems(step, steps, row.payload_schema).items():
                what = f"type {row.name}, step {step.name}"
                found.append(_told(what, f"{field}: {why}", "jobs.W013"))
    for schedule in JobSchedule.objects.filter(enabled=True).select_related("type"):
        problems = schedule_problems(schedule, schema=schedule.type.payload_schema)
        for field, why in problems.items():
            found.append(_told(f"schedule {schedule.name}", f"{field}: {why}", "jobs.W014"))
    return found


def _told(what: str, why: str, code: str) -> CheckMessage:
    return Warning(
        f"{what[:1].upper()}{what[1:]} cannot be used: {why.rstrip('.')}.",
        hint="Correct it in the admin, under Jobs.",
        id=code,
    )
