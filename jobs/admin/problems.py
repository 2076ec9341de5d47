"""What is wrong with jobs now, for the top of the dashboard and of the jobs page.

Runs in request threads; bounded, whatever the number of jobs: dead ones are told by the newest of
them, waiting ones by the oldest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.urls import reverse
from django.utils import timezone

from control.admin.figures import ago, compact, duration
from control.admin.inert import one_line
from control.ports.panels import Problem, register_problems
from jobs.admin import counting, held, runners
from jobs.admin.counting import Counts
from jobs.admin.held import HeldJob
from jobs.admin.marks import REASON_WORDS, REASONS
from jobs.admin.runners import ShownRunner
from jobs.states import DEAD, QUEUED, RUNNING
from jobs.store.models import Job
from jobs.types import catalogue
from jobs.types.models import DownstreamService, JobSchedule, JobType

EXAMINED = 300  # of the jobs that died last
RECENT = timedelta(hours=24)
TYPES_SHOWN = 5
NAMES_SHOWN = 5
WAITS_LONG = timedelta(minutes=5)
OLDEST_EXAMINED = 50


def register() -> None:
    register_problems(found, name="jobs")


def found() -> list[Problem]:
    counts = counting.counts()
    now = timezone.now()
    if not counts.total and not JobSchedule.objects.exists():
        return _broken()
    return of(counts, runners.runners(now), now)


def of(
    counts: Counts,
    shown: list[ShownRunner],
    now: datetime,
    waiting: Sequence[HeldJob] | None = None,
) -> list[Problem]:
    waiting = held.held() if waiting is None else waiting
    alive = any(one.alive for one in shown)
    problems = [
        *_nobody(counts, shown, now),
        *_saturated(counts),
        *_unusable(waiting),
        *_breakers(shown),
        *_dead(counts, now),
        *_broken(),
        *_schedules(),
        *_runners(shown),
    ]
    if alive:
        problems += _waiting(counts, now)
    rank = {"error": 0, "warning": 1, "info": 2}
    return sorted(problems, key=lambda one: rank[one.severity])


def jobs_url(**query: str) -> str:
    return reverse("admin:jobs_job_changelist", query=query or None)


def _nobody(counts: Counts, shown: list[ShownRunner], now: datetime) -> list[Problem]:
    if any(one.alive for one in shown):
        return []
    left = counts.open()
    if not left:
        return []
    seen = max((one.runner.seen_at for one in shown), default=None)
    last = f"The last was seen {ago(seen, now)}." if seen else "None is known."
    running = counts.of(RUNNING)
    holds = (
        f" {running:,} {'is' if running == 1 else 'are'} in a dead runner's hands, for the next."
        if running
        else ""
    )
    return [
        Problem(
            severity="error",
            title=f"Nobody runs jobs: {compact(left)} wait",
            cause=f"{last}{holds}",
            remedy="Start one: “make run” does beside the server, or “manage.py run_jobs”, or run "
            "them in the server with COLLECTOR_JOBS=on. If one is running, its log says why it "
            "cannot reach the control database.",
            url=jobs_url(state="open"),
        )
    ]


def _saturated(counts: Counts) -> list[Problem]:
    config = settings.COLLECTOR.jobs
    left = counts.open()
    if left < config.capacity * config.resume:
        return []
    full = left >= config.capacity
    worst = max(counts.by_type, key=counts.open, default=None)
    name = counting.type_names().get(worst or 0, "")
    most = f" Most are of the type {name}." if name else ""
    return [
        Problem(
            severity="error" if full else "warning",
            title="New jobs are refused: the queue is full"
            if full
            else "The queue of jobs is nearly full",
            cause=f"{left:,} jobs have not ended, of {config.capacity:,} that are taken in. POST "
            f"/jobs {'answers' if full else 'will answer'} 429 with Retry-After.{most}",
            remedy="Run more of them at once (COLLECTOR_JOBS_MAX_WORKERS, another “manage.py "
            "run_jobs”), see whether a breaker is open, cancel what nobody needs, or raise "
            "COLLECTOR_JOBS_CAPACITY.",
            url=jobs_url(state="open"),
        )
    ]


def _breakers(shown: Iterable[ShownRunner]) -> list[Problem]:
    problems = []
    keys = dict(DownstreamService.objects.values_list("name", "pk"))
    for name, health in sorted(runners.downstreams(shown).items()):
        if not health.troubled:
            continue
        key = keys.get(name)
        word = "half-open" if health.breaker == "half_open" else health.breaker
        then = f" It is tried again in {duration(health.retry_in_s)}." if health.retry_in_s else ""
        cause = one_line(health.cause, limit=300).rstrip(".") or "Its calls failed"
        problems.append(
            Problem(
                severity="warning",
                title=f"The breaker of {name} is {word}",
                cause=f"{cause}.{then} {health.open_in} of {health.runners} "
                f"runner{'' if health.runners == 1 else 's'} "
                f"{'does' if health.open_in == 1 else 'do'} not call it."
                f"{health.tripped}",
                remedy="Nothing is lost and no attempt is spent: its jobs are delayed. Repair "
                "the service, or correct its address here; calls go on by themselves.",
                url=reverse("admin:jobs_downstreamservice_change", args=[key]) if key else "",
            )
        )
    return problems


def _unusable(waiting: Sequence[HeldJob]) -> list[Problem]:
    """Services whose calls are not even begun: a variable that is not set, a bad address."""
    problems = []
    names = counting.type_names()
    keys = dict(DownstreamService.objects.values_list("name", "pk"))
    for service, jobs in sorted(held.unusable(waiting).items()):
        often = Counter(names.get(one.type_id, f"type {one.type_id}") for one in jobs)
        of_types = ", ".join(f"{many:,} of {name}" for name, many in often.most_common(NAMES_SHOWN))
        key = keys.get(service)
        problems.append(
            Problem(
                severity="error",
                title=f"{service} cannot be called as it is configured",
                cause=f"{jobs[0].why.rstrip('.')}. Jobs wait for it: {of_types}"
                f"{' or more' if len(waiting) >= held.EXAMINED else ''}.",
                remedy="Correct the service, or set what is missing in the environment of the "
                "runners and restart them. Its jobs go on by themselves, and no attempt is spent; "
                "but they die when their deadline passes.",
                url=reverse("admin:jobs_downstreamservice_change", args=[key]) if key else "",
            )
        )
    return problems


def _dead(counts: Counts, now: datetime) -> list[Problem]:
    """By type: how many are dead, and why most of those that died last did."""
    if not counts.of(DEAD):
        return []
    newest = Job.objects.filter(state=DEAD).order_by("-pk")
    rows = newest.values_list("type_id", "reason", "error", "finished_at")[:EXAMINED]
    recent: dict[int, list[tuple[str, str]]] = {}
    last: dict[int, datetime] = {}
    for type_id, reason, error, finished_at in rows:
        if finished_at is None or finished_at < now - RECENT:
            continue
        recent.setdefault(type_id, []).append((reason, one_line(error, limit=160)))
        last[type_id] = max(last.get(type_id, finished_at), finished_at)
    names = counting.type_names()
    problems = []
    order = sorted(recent, key=lambda one: -len(recent[one]))
    for type_id in order[:TYPES_SHOWN]:
        name = names.get(type_id, f"type {type_id}")
        total = counts.of(DEAD, type_id) or len(recent[type_id])
        (reason, error), often = Counter(recent[type_id]).most_common(1)[0]
        why = error or REASONS.get(reason, "")
        share = f"{often} of the last {len(recent[type_id])}: " if len(recent[type_id]) > 1 else ""
        problems.append(
            Problem(
                severity="warning",
                title=f"{total:,} {'job' if total == 1 else 'jobs'} of {name} "
                f"{'is' if total == 1 else 'are'} dead",
                cause=f"{share}{REASON_WORDS.get(reason) or reason or 'failed'}"
                f"{f' ({why})' if why else ''}. The last died {ago(last[type_id], now)}.",
                remedy="Mend the cause, then retry them all from the list: steps that succeeded "
                "are not run again. Or discard them.",
                url=jobs_url(state=DEAD, type=name),
            )
        )
    return problems


def _broken() -> list[Problem]:
    """Types and services that are configured such that they cannot be used."""
    broken = catalogue.current().broken
    if not broken:
        return []
    named = "; ".join(f"{what}: {why}"[:200] for what, why in sorted(broken.items())[:NAMES_SHOWN])
    more = f"; and {len(broken) - NAMES_SHOWN} more" if len(broken) > NAMES_SHOWN else ""
    kind, _, name = min(broken).partition(" ")
    model, where = ("jobtype", JobType) if kind == "type" else ("downstreamservice", None)
    rows = (where or DownstreamService)._default_manager.filter(name=name)
    key = rows.values_list("pk", flat=True).first()
    return [
        Problem(
            severity="error",
            title=f"{len(broken)} cannot be used as configured: jobs of it wait"
            if len(broken) == 1
            else f"{len(broken)} job types or services cannot be used as configured",
            cause=f"{named}{more}.",
            remedy="Correct it; runners take the change within seconds.",
            url=reverse(f"admin:jobs_{model}_change", args=[key]) if key else "",
        )
    ]


def _schedules() -> list[Problem]:
    failing = JobSchedule.objects.filter(enabled=True).exclude(last_error="")
    rows = list(failing.order_by("name")[: NAMES_SHOWN + 1])
    if not rows:
        return []
    named = "; ".join(f"{row.name}: {one_line(row.last_error, limit=160)}" for row in rows)
    return [
        Problem(
            severity="warning",
            title=f"The schedule {rows[0].name} fails" if len(rows) == 1 else "Schedules fail",
            cause=f"{named}.",
            remedy="Correct the schedule or its type; it goes on at its next time.",
            url=reverse("admin:jobs_jobschedule_change", args=[rows[0].pk])
            if len(rows) == 1
            else reverse("admin:jobs_jobschedule_changelist"),
        )
    ]


def _runners(shown: Iterable[ShownRunner]) -> list[Problem]:
    problems = []
    for one in shown:
        if one.alive and one.stuck:
            problems.append(
                Problem(
                    severity="error",
                    title=f"Runner {one.runner} takes no more jobs",
                    cause=f"{one.hung} of its workers hang: steps did not end when they were told "
                    "to, and each keeps a thread.",
                    remedy="Restart it; then find what the steps wait for: a handler must look at "
                    "its StepContext (check).",
                )
            )
        elif one.alive and one.hung:
            problems.append(
                Problem(
                    severity="warning",
                    title=f"Runner {one.runner} has {one.hung} hung "
                    f"worker{'' if one.hung == 1 else 's'}",
                    cause="A step did not end when it was told to. Its job went back or was "
                    "ended; the thread is given up.",
                    remedy="Find what the step waits for: a handler must look at its "
                    "StepContext (check). Restart the runner to have the threads back.",
                )
            )
        if one.alive and one.trouble:
            problems.append(
                Problem(
                    severity="warning",
                    title=f"Runner {one.runner} cannot use the control database",
                    cause=one_line(one.trouble, limit=300),
                    remedy="It goes on by itself when the database answers.",
                )
            )
    return problems


def _waiting(counts: Counts, now: datetime) -> list[Problem]:
    if not counts.of(QUEUED):
        return []
    oldest = Job.objects.filter(state=QUEUED, type__enabled=True).order_by("pk")
    rows = oldest.values_list("pk", "run_at", "type__name")[:OLDEST_EXAMINED]
    first = min(rows, key=lambda row: row[1], default=None)
    if first is None or now - first[1] < WAITS_LONG:
        return []
    key, since, name = first
    return [
        Problem(
            severity="warning",
            title=f"A job of {name} has waited for {duration((now - since).total_seconds())}",
            cause=f"{counts.of(QUEUED):,} jobs are queued. Runners take them by priority, then by "
            "age, within the limits of their types.",
            remedy="Run more at once (COLLECTOR_JOBS_MAX_WORKERS, another “manage.py run_jobs”), "
            "or see whether the limits of its type are meant.",
            url=reverse("admin:jobs_job_change", args=[key]),
        )
    ]
