"""What is wrong with health monitoring now, for the top of the dashboard.

Runs in request threads; bounded, whatever the number of targets.
"""

from __future__ import annotations

from datetime import timedelta

from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone

from control.admin.figures import ago, duration
from control.admin.links import link
from control.models import Process
from control.ports.panels import Problem, register_problems
from healthmon.admin import statuses
from healthmon.leases.models import Checker
from healthmon.targets.models import Target
from healthmon.targets.options import problems as target_problems

NAMES_SHOWN = 5
EXAMINED = 200  # of the targets that changed last: what is broken was changed
LAG_S = 0.5
FAR_TARGETS = 5  # from so many on a checker judges whether its own network is there
SILENT = timedelta(seconds=20)


def register() -> None:
    register_problems(found, name="health monitoring")


def found() -> list[Problem]:
    now = timezone.now()
    watched = Target.objects.filter(paused=False)
    if not watched.exists():
        return []
    watching = statuses.watch(now)
    return [
        *_checkers(watching),
        *_down(watched, watching),
        *_lagging(),
        *_unwitnessed(),
        *_broken(watched),
    ]


def _checkers(watching: statuses.Watch) -> list[Problem]:
    now = timezone.now()
    if Checker.objects.filter(expires_at__gte=now).exists():
        return []
    if watching.all_abandoned:
        seen = [since for since in watching.abandoned.values() if since is not None]
        last = f"The last one was seen {ago(max(seen), now)}" if seen else "None has ever run"
        return [
            Problem(
                severity="error",
                title="No checker is alive: nothing is probed",
                cause=f"{last}. Statuses are shown as unknown until one runs.",
                remedy="Start one: “manage.py run_checker”, or “make run”, which starts one beside "
                "the server. If one is running, its log says why it cannot reach the control "
                "database.",
                url=link("admin:healthmon_target_changelist"),
            )
        ]
    return []


def _down(watched: QuerySet[Target], watching: statuses.Watch) -> list[Problem]:
    # As the panel beside it counts, so that the two do not differ.
    count = statuses.counts(watching)["down"]
    down = watched.filter(statuses.having("down", watching))
    if not count:
        return []
    rows = down.select_related("state").order_by("-state__since")[:NAMES_SHOWN]
    names = "; ".join(f"{row.name}: {row.state.reason or 'down'}"[:160] for row in rows)
    more = f"; and {count - NAMES_SHOWN} more" if count > NAMES_SHOWN else ""
    notes = rows[0].notes.strip() if count == 1 else ""
    address = (
        reverse("admin:healthmon_target_overview", args=[rows[0].pk])
        if count == 1
        else reverse("admin:healthmon_target_changelist", query={"status": "down"})
    )
    return [
        Problem(
            severity="error" if any(row.severity == "critical" for row in rows) else "warning",
            title=f"{rows[0].name} is down" if count == 1 else f"{count:,} targets are down",
            cause=f"{names}{more}.",
            remedy=notes[:400]
            or "Open the incident: it has the last results, and the stored logs "
            "of the service around it.",
            url=address,
        )
    ]


def _lagging() -> list[Problem]:
    """Checkers that say their probes start late."""
    found = []
    since = timezone.now() - SILENT
    rows = Process.objects.filter(role="checker", stopped_at=None, last_seen_at__gte=since)
    for process in rows:
        stats = process.stats if isinstance(process.stats, dict) else {}
        told = stats.get("checker")
        lag = told.get("loop_lag_s") if isinstance(told, dict) else None
        if not isinstance(lag, int | float) or lag < LAG_S:
            continue
        found.append(
            Problem(
                severity="warning",
                title=f"Checker {process} starts probes {duration(float(lag))} late",
                cause="It has more to probe than its processor or its limits allow; results that "
                "are too late to judge by are counted as void.",
                remedy="Start another checker (“manage.py run_checker”): they share the targets. "
                "Or probe less often, or raise COLLECTOR_PROBE_CONCURRENCY.",
                url=link("admin:control_process_change", process.pk),
            )
        )
    return found


def _unwitnessed() -> list[Problem]:
    """Checkers that could not tell the loss of their network from that of their targets."""
    since = timezone.now() - SILENT
    rows = Process.objects.filter(role="checker", stopped_at=None, last_seen_at__gte=since)
    for process in rows:
        told = process.stats.get("checker") if isinstance(process.stats, dict) else None
        if not isinstance(told, dict) or told.get("witnesses") != 0:
            continue
        beyond = told.get("beyond")
        if not isinstance(beyond, int) or beyond < FAR_TARGETS:
            continue
        return [
            Problem(
                severity="info",
                title=f"Nobody tells checker {process} whether its network is there",
                cause=f"It probes {beyond:,} targets beyond its machine, which names no nameserver "
                "and no gateway that could be asked. Were its network lost, it would find them "
                "all down.",
                remedy="Set COLLECTOR_NETWORK_WITNESSES to a few hosts that answer whenever there "
                "is a network, as 192.0.2.1:443.",
                url=link("admin:control_process_change", process.pk),
            )
        ]
    return []


def _broken(watched: QuerySet[Target]) -> list[Problem]:
    wrong = []
    for target in watched.order_by("-updated_at")[:EXAMINED]:
        texts = target_problems(target)
        if texts:
            wrong.append((target, next(iter(texts.values()))))
    if not wrong:
        return []
    named = "; ".join(f"{target.name}: {text}"[:200] for target, text in wrong[:NAMES_SHOWN])
    more = f"; and {len(wrong) - NAMES_SHOWN} more" if len(wrong) > NAMES_SHOWN else ""
    count = len(wrong)
    return [
        Problem(
            severity="warning",
            title=f"{count} target{'' if count == 1 else 's'} cannot be probed as configured",
            cause=f"{named}{more}.",
            remedy="Correct the target; checkers take the change within seconds.",
            url=reverse("admin:healthmon_target_change", args=[wrong[0][0].pk]),
        )
    ]
