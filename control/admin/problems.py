"""What is wrong now, as the figures tell it: each with its cause, and what the operator should do.

Other rooms add theirs through `control.ports.panels.register_problems`. Pure functions over an
overview; they run in request threads.
"""

from __future__ import annotations

from datetime import timedelta

from control.admin import logproblems, pressure
from control.admin.alarms import Alarm
from control.admin.figures import ago, compact, duration, percent
from control.admin.links import link, sink_link
from control.admin.overview import Overview
from control.admin.pipelines import PipelineView
from control.ports.panels import Problem

# Where the engine's default marks begin to hint that room is getting scarce.
NEARLY_FULL = 0.7
LOST_FOR = timedelta(hours=1)
ERROR_LENGTH = 300
PLACES_SHOWN = 5


def found(overview: Overview) -> list[Problem]:
    """Every problem of this overview; `control.ports.panels.problems` has those of other rooms."""
    problems = [*_processes(overview), *_ledger(overview), *logproblems.found(overview)]
    for pipeline in overview.pipelines:
        problems += of_pipeline(pipeline, overview)
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
        if one.delivered_at is not None:
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
    """One problem a sink, with the places where it does not balance."""
    by_sink: dict[str, list[Alarm]] = {}
    for process in overview.processes:
        for alarm in process.alarms:
            by_sink.setdefault(alarm.sink, []).append(alarm)
    return [_imbalance(sink, alarms, overview) for sink, alarms in sorted(by_sink.items())]


def _imbalance(sink: str, alarms: list[Alarm], overview: Overview) -> Problem:
    # Those of opposite sign must not cancel out.
    size = sum(abs(alarm.records) for alarm in alarms)
    places = "; ".join(_place(alarm, overview) for alarm in alarms[:PLACES_SHOWN])
    if len(alarms) > PLACES_SHOWN:
        places += f"; and {len(alarms) - PLACES_SHOWN} more"
    what = "are missing from" if alarms[0].records > 0 else "were counted twice in"
    return Problem(
        severity="error",
        title=f"The ledger of {sink} does not balance: {compact(size)} records",
        cause=f"Records {what} the account of what was accepted and how it ended. This is a "
        f"defect, not a matter of load. {places}.",
        remedy="Run “manage.py ledger --json” and “manage.py wal verify”, keep both with the "
        "process's log, and compare the accepted records with what the sink holds before the "
        "process is restarted.",
        url=sink_link(overview.keys.get(sink, sink)),
    )


def _place(alarm: Alarm, overview: Overview) -> str:
    since = f" since {alarm.since:%H:%M:%S} UTC" if alarm.since else ""
    return (
        f"Tenant {alarm.tenant}: {alarm.records:+,} records{since}, in {alarm.process} "
        f"(log {alarm.log_id or 'not known'})"
    )


def of_pipeline(pipeline: PipelineView, overview: Overview) -> list[Problem]:
    """What is wrong with one pipeline."""
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
    elif pipeline.stuck or pipeline.hung_workers:
        problems.append(_hung(pipeline, kind, url))
    elif pipeline.broken:
        problems.append(_breaker(pipeline, kind, overview, url))
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
    elif pipeline.state == "draining":
        problems.append(
            Problem(
                severity="warning",
                title=f"{pipeline.name} ({kind}) takes nothing new: its process is draining",
                cause="It was asked to drain, by “manage.py drain” or by a stop. Requests are "
                "answered 503.",
                remedy="If it was not stopped meanwhile, restart it: a drained process takes "
                "records again only then.",
                url=url,
            )
        )
    return problems + _room(pipeline, url)


def _breaker(pipeline: PipelineView, kind: str, overview: Overview, url: str) -> Problem:
    since = f" It opened {ago(pipeline.opened_at, overview.now)}." if pipeline.opened_at else ""
    if pipeline.breaker == "half_open":
        then = " One batch tries the sink now."
    elif pipeline.retry_in_s is not None:
        then = f" The next try is in {duration(pipeline.retry_in_s)}."
    else:
        then = ""
    cause = (pipeline.breaker_cause or pipeline.last_error)[:ERROR_LENGTH].rstrip(".")
    return Problem(
        severity="error" if pipeline.required else "warning",
        title=f"The breaker of {pipeline.name} ({kind}) is {pipeline.breaker_word}: "
        f"{compact(pipeline.held_records)} records wait",
        cause=f"{cause or 'Its writes failed'}.{since}{then}",
        remedy=(
            "Nothing is lost: records wait in the log and no attempt is spent. "
            if pipeline.required
            else "Records wait in the log; when its share is full, the oldest are dropped. "
        )
        + "Repair what the sink writes to, or correct its options here; delivery goes on by "
        "itself.",
        url=url,
    )


def _hung(pipeline: PipelineView, kind: str, url: str) -> Problem:
    count = len(pipeline.hung_workers)
    names = ", ".join(pipeline.hung_workers[:PLACES_SHOWN])
    hung = f"{count} worker thread{'s do' if count != 1 else ' does'} not come back from the sink"
    if pipeline.stuck:
        return Problem(
            severity="error",
            title=f"{pipeline.name} ({kind}) is stuck: {compact(pipeline.held_records)} "
            "records wait",
            cause=f"{hung or 'Its workers hang'}{f' ({names})' if names else ''}, and no more are "
            "made. Its records wait in the log.",
            remedy="Find what the sink waits for (its host, a lock, a full volume). If it does "
            "not let go, restart the process: the log is delivered by the next one.",
            url=url,
        )
    return Problem(
        severity="warning",
        title=f"{pipeline.name} has hung workers: {count}",
        cause=f"{hung} ({names}); others took their place.",
        remedy="Find what the sink waits for. Delivery goes on meanwhile.",
        url=url,
    )


def _room(pipeline: PipelineView, url: str) -> list[Problem]:
    fill = pipeline.fill or 0.0
    refused = pressure.refusal(pipeline, url)
    if refused is not None:
        return [refused]
    if fill >= NEARLY_FULL:
        narrow = pressure.narrowest(pipeline)
        return [
            Problem(
                severity="warning",
                title=f"{pipeline.name}'s buffer is {percent(fill)} full",
                cause=f"{compact(pipeline.held_records)} records wait, the oldest for "
                f"{duration(pipeline.oldest_s)}. {narrow.cause}",
                remedy=narrow.remedy,
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
