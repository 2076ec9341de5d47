"""The page of one target: what it is now, how it was, and what was heard of it.

Every part is bounded, and one that its database cannot answer is missing, not the page.  Runs in
request threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.http import QueryDict

from control.admin import charts as time_charts
from control.admin.inert import inert
from control.ports.logs import LogsFound, logs_of, logs_permission
from healthmon.admin import charts, measures, servicejobs, statuses
from healthmon.admin.figures import latency_text, seconds_text, uptime_text
from healthmon.admin.targetlist import next_text
from healthmon.heartbeats.models import Heartbeat
from healthmon.history import queries
from healthmon.models import Flip, Incident, MaintenanceWindow, Ping, Target
from healthmon.probes.registry import KindError, kind_of
from healthmon.targets.options import decoded, problems
from sinks.options import OptionsError
from sinks.secrets import SecretError

RESULTS_SHOWN = 25
FLIPS_SHOWN = 20
INCIDENTS_SHOWN = 10
PINGS_SHOWN = 25
WINDOWS_SHOWN = 5
BEFORE, AFTER = timedelta(minutes=5), timedelta(minutes=5)
LOGS_SHOWN = 50
DEFAULT_WINDOW, FRESH_WINDOW, FRESH = "24h", "1h", timedelta(hours=3)


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One result with its phases drawn."""

    result: Any
    bar: str
    took: str
    error: str


@dataclass(frozen=True, kw_only=True)
class LogRow:
    at: datetime
    level: str
    message: str
    url: str


def context(target: Target, query: QueryDict, now: datetime, user: Any) -> dict[str, Any]:
    watching = statuses.watch(now)
    passive, kind_label = _kind(target)
    incidents = list(
        Incident.objects.filter(target=target).select_related("suppressed_by")[:INCIDENTS_SHOWN]
    )
    before = query.get("before", "")
    results: list[Any] = measures.told(
        lambda: queries.last_results(
            target.pk, limit=RESULTS_SHOWN, before_id=int(before) if before.isdigit() else None
        ),
        [],
        what="results",
    )
    return {
        "target": target,
        "now": now,
        "shown": statuses.shown(target, watching),
        "next_text": next_text(target, watching, now, passive=passive),
        "passive": passive,
        "kind_label": kind_label,
        "problems": list(problems(target).values()),
        "facts": _facts(target, passive=passive),
        "tags": list(target.tags.all()),
        "spans": [(span, uptime_text(span.ratio)) for span in measures.spans(target.pk, now)],
        "objective": measures.objective(target.pk, now) if target.slo_percent else None,
        "parents": list(target.parents.all()[:20]),
        "children": list(target.children.all()[:20]),
        **_latency(target, query, now),
        **_ribbon(target, now),
        "flips": list(Flip.objects.filter(target=target)[:FLIPS_SHOWN]),
        "incidents": incidents,
        "results": result_rows(results),
        "older": results[-1].pk if len(results) == RESULTS_SHOWN else None,
        "heartbeat": Heartbeat.objects.filter(target=target).first() if passive else None,
        "pings": list(Ping.objects.filter(target=target)[:PINGS_SHOWN]) if passive else [],
        "windows": list(
            MaintenanceWindow.objects.filter(targets=target, active=True)[:WINDOWS_SHOWN]
        ),
        **logs_context(target, incidents[0] if incidents else None, now, user),
        **servicejobs.context(target, now, user),
    }


def result_rows(results: list[Any]) -> list[ResultRow]:
    longest = max((result.latency_ms for result in results), default=0.0)
    rows = []
    for result in results:
        parts = charts.phases(result, result.latency_ms)
        rows.append(
            ResultRow(
                result=result,
                bar=charts.phase_bar(parts, longest_ms=longest),
                took=latency_text(result.latency_ms),
                error=inert(result.error, limit=300),
            )
        )
    return rows


def logs_context(
    target: Target, incident: Incident | None, now: datetime, user: Any
) -> dict[str, Any]:
    """The stored logs of the target's service around an incident, or of the last minutes.

    Only for who may view log records: a target may name any service.
    """
    permission = logs_permission()
    if permission and not user.has_perm(permission):
        return {"logs": None, "logs_withheld": True, "log_rows": []}
    if incident is not None:
        start, end = incident.opened_at - BEFORE, min(incident.opened_at + AFTER, now)
    else:
        start, end = now - BEFORE - AFTER, now
    found: LogsFound | None = logs_of(target.log_service, start=start, end=end, limit=LOGS_SHOWN)
    lines = found.lines if found is not None else ()
    return {
        "logs": found,
        "log_service": inert(target.log_service, limit=200),
        "log_incident": incident,
        "log_rows": [
            LogRow(
                at=line.at,
                level=inert(line.level, limit=20),
                message=inert(line.message, limit=500),
                url=line.url,
            )
            for line in lines
        ],
    }


def _kind(target: Target) -> tuple[bool, str]:
    try:
        kind = kind_of(target.kind)
    except KindError:
        return False, target.kind
    return kind.probe is None, kind.label


def _facts(target: Target, *, passive: bool) -> list[tuple[str, str]]:
    found = [
        *(_passive_facts(target) if passive else _probed_facts(target)),
        ("Severity", target.severity),
        ("Group", target.group.name if target.group is not None else ""),
        ("Owner", str(target.owner or "")),
    ]
    return [(name, value) for name, value in found if value]


def _probed_facts(target: Target) -> list[tuple[str, str]]:
    slow = target.degraded_after_ms
    return [
        ("Every", seconds_text(target.interval_s)),
        ("Timeout", seconds_text(target.timeout_s)),
        ("Down after", _in_a_row(target.failure_threshold, "failure")),
        ("Up after", _in_a_row(target.success_threshold, "success", "successes")),
        ("Degraded above", latency_text(slow) if slow else ""),
    ]


def _passive_facts(target: Target) -> list[tuple[str, str]]:
    """What its pings are judged by: one that tells of a failure, or is missing, makes it down."""
    cron = inert(str(target.options.get("cron") or ""), limit=100)
    zone = inert(str(target.options.get("time_zone") or "UTC"), limit=64)
    every = seconds_text(target.interval_s)
    try:
        _, options = decoded(target)
        grace = seconds_text(float(getattr(options, "grace_s", 0.0)))
    except (KindError, OptionsError, SecretError):
        grace = ""
    return [
        ("Pings expected", f"by cron {cron}" if cron else f"every {every}"),
        ("Time zone", zone if cron else ""),
        ("Grace", grace),
        ("Down after", "a ping that tells of a failure, or one missing after its grace"),
        ("Up after", "one ping that tells of success"),
    ]


def _in_a_row(count: int, one: str, many: str = "") -> str:
    return f"{count} {(many or one + 's') if count != 1 else one} in a row"


def _latency(target: Target, query: QueryDict, now: datetime) -> dict[str, Any]:
    # Of a target that is new, a day would be an empty chart with a dot at its end.
    fresh = now - target.created_at < FRESH
    key = query.get("window", FRESH_WINDOW if fresh else DEFAULT_WINDOW)
    window = charts.WINDOWS.get(key) or charts.WINDOWS[DEFAULT_WINDOW]
    # On the steps of the grid, so that a picture does not shift with each look.
    step = window.step_s
    end = datetime.fromtimestamp((now.timestamp() // step + 1) * step, tz=now.tzinfo)
    start = end - window.span
    points: list[queries.Point] = measures.told(
        lambda: queries.latency(target.pk, start, end, points=window.points), [], what="latencies"
    )
    return {
        "latency": time_charts.render(charts.latency_chart(points, window, start=start)),
        "latency_points": points,
        "window": window,
        "windows_offered": list(charts.WINDOWS.values()),
    }


def _ribbon(target: Target, now: datetime) -> dict[str, Any]:
    days = measures.ribbon(target.pk, now)
    return {
        "ribbon": charts.ribbon(days, label=f"The last {len(days)} days"),
        "ribbon_words": charts.ribbon_words(days) if days else "",
        "bad_days": [(day, uptime_text(day.ratio)) for day in days if day.down_s > 0],
    }
