"""What is wrong now, as the figures tell it: each with its cause, and what the operator should do.

Other rooms add theirs through `control.ports.panels.register_problems`. Pure functions over an
overview; they run in request threads.
"""

from __future__ import annotations

from datetime import timedelta

from django.urls import NoReverseMatch, reverse

from control.admin.figures import ago, compact, duration, percent
from control.admin.overview import Overview
from control.admin.pipelines import PipelineView
from control.ports.panels import Problem

# The engine's default high watermark: above it, new records are refused.
NEARLY_FULL = 0.7
LOST_FOR = timedelta(hours=1)
ERROR_LENGTH = 300


def link(name: str, *args: object) -> str:
    """An address by name, or nothing where no admin of that name is installed."""
    try:
        return reverse(name, args=[str(arg) for arg in args])
    except NoReverseMatch:
        return ""


def sink_link(key: str) -> str:
    """A pipeline is keyed by its sink's identity, so its key finds the sink's page."""
    return link("admin:sinks_sinkconfig_change", key)


def found(overview: Overview) -> list[Problem]:
    """Every problem of this overview; `control.ports.panels.problems` has those of other rooms."""
    problems = [*_processes(overview), *_ledger(overview)]
    for pipeline in overview.pipelines:
        problems += _pipeline(pipeline, overview)
    return problems


def _processes(overview: Overview) -> list[Problem]:
    problems = []
    if not overview.alive:
        last = max((one.process.last_seen_at for one in overview.processes), default=None)
        problems.append(
            Problem(
                severity="error",
                title="No Collector process reports",
                cause="No process has written a heartbeat"
                + (f" since {ago(last, overview.now)}." if last else " yet."),
                remedy="Start the server with “make run”. If it is running, its log says why it "
                "cannot reach the control database.",
                url=link("admin:control_process_changelist"),
            )
        )
    for one in overview.ended:
        if one.state != "lost" or overview.now - one.process.last_seen_at > LOST_FOR:
            continue
        held = one.in_flight
        problems.append(
            Problem(
                severity="error" if held else "warning",
                title=f"{one.process} fell silent {ago(one.process.last_seen_at, overview.now)}",
                cause="It ended without saying so (killed, out of memory, host down), or it "
                "cannot reach the control database."
                + (
                    f" {compact(held)} records were in flight at its last heartbeat."
                    if held
                    else ""
                ),
                remedy="Look at its host and its log; restart it if it is gone.",
                url=link("admin:control_process_change", one.process.pk),
            )
        )
    return problems


def _ledger(overview: Overview) -> list[Problem]:
    return [
        Problem(
            severity="error",
            title=f"The ledger of {row.name} does not balance: {compact(row.imbalance)} records",
            cause="What was accepted is not what was stored, dead-lettered, dropped or is in "
            "flight. This is a defect, not a matter of load.",
            remedy="Keep the logs of the process and run “manage.py ledger --json”; report both.",
            url=sink_link(row.sink),
        )
        for row in overview.ledger
        if row.imbalance
    ]


def _pipeline(pipeline: PipelineView, overview: Overview) -> list[Problem]:
    problems = []
    url = sink_link(pipeline.key)
    kind = "required" if pipeline.required else "optional"
    if pipeline.misconfigured or pipeline.state == "misconfigured":
        problems.append(
            Problem(
                severity="error" if pipeline.required else "warning",
                title=f"{pipeline.name} is misconfigured",
                cause=(pipeline.misconfigured or pipeline.last_error or "Its options are refused.")[
                    :ERROR_LENGTH
                ],
                remedy="Correct the sink's options; processes take the change within seconds.",
                url=url,
            )
        )
    elif pipeline.failing:
        problems.append(
            Problem(
                severity="error" if pipeline.required else "warning",
                title=f"{pipeline.name} ({kind}) cannot store: {compact(pipeline.failures)} "
                "failed writes",
                cause=f"{pipeline.last_error[:ERROR_LENGTH]} "
                f"({ago(pipeline.last_error_at, overview.now)})",
                remedy="Records wait and are tried again. Repair the sink, or correct its "
                "options here.",
                url=url,
            )
        )
    return problems + _room(pipeline, url)


def _room(pipeline: PipelineView, url: str) -> list[Problem]:
    fill = pipeline.fill or 0.0
    if (pipeline.refusing or pipeline.refused_rate) and pipeline.required:
        rate = pipeline.refused_rate
        what = f"{compact(rate)} records/s" if rate else "new records"
        return [
            Problem(
                severity="error",
                title=f"{pipeline.name} refuses {what}",
                cause=f"Its buffer is {percent(fill)} full; senders are answered 429 with a "
                "Retry-After.",
                remedy="Find why it stores too slowly (see its write latency), give it more "
                "workers, or send less.",
                url=url,
            )
        ]
    if fill >= NEARLY_FULL:
        paused = " It is paused." if pipeline.paused else ""
        return [
            Problem(
                severity="warning",
                title=f"{pipeline.name}'s buffer is {percent(fill)} full",
                cause=f"{compact(pipeline.held_records)} records wait, the oldest for "
                f"{duration(pipeline.oldest_s)}.{paused}",
                remedy="Resume the sink."
                if pipeline.paused
                else "Look at its write latency and last error; raise its workers or its capacity.",
                url=url,
            )
        ]
    if pipeline.paused and pipeline.held_records:
        return [
            Problem(
                severity="info",
                title=f"{pipeline.name} is paused",
                cause=f"{compact(pipeline.held_records)} records wait for it.",
                remedy="Resume the sink when its store is ready.",
                url=url,
            )
        ]
    return []
