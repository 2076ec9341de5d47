"""One job as its page tells it: what it is, what became of it and why, its steps, its events.

Everything that came from outside is made inert.  Runs in request threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.urls import reverse
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from control.admin.figures import duration
from control.admin.inert import inert, one_line
from control.admin.jsonview import json_html
from jobs.admin import counting, gantt, held, marks
from jobs.admin.problems import jobs_url
from jobs.bulk.models import CANCEL, DISCARD, REPRIORITISE, RETRY
from jobs.states import CANCELLED, DEAD, DISCARDED, OPEN, QUEUED, RUNNING, SCHEDULED
from jobs.store.models import Job, JobEvent, JobStep
from jobs.types.models import JobType

EVENTS_SHOWN = 200
STEPS_SHOWN = 200
TEXT_CHARS = 2_000


def possible(job: Job) -> set[str]:
    """What can be asked of the job now."""
    asked = set()
    if job.state in (DEAD, CANCELLED, SCHEDULED):
        asked.add(RETRY)
    if job.state in OPEN:
        asked.add(REPRIORITISE)
        if job.cancel_asked_at is None or job.state != RUNNING:
            asked.add(CANCEL)
    if job.state == DEAD:
        asked.add(DISCARD)
    return asked


def context(job: Job, now: datetime) -> dict[str, Any]:
    type_row = JobType.objects.filter(pk=job.type_id).first()
    newest = list(JobEvent.objects.filter(job_id=job.pk).order_by("-pk")[: EVENTS_SHOWN + 1])
    events = newest[:EVENTS_SHOWN][::-1]
    steps = list(JobStep.objects.filter(job_id=job.pk).order_by("stage", "pk")[:STEPS_SHOWN])
    rows = gantt.chart(job, events, steps, now)
    return {
        "job": job,
        "now": now,
        "type_row": type_row,
        "state": marks.state_mark(job.state),
        "asked": possible(job),
        "open": job.state in OPEN,
        "headline": _headline(job, type_row, steps, now),
        "meaning": marks.MEANINGS.get(job.state, ""),
        "reason": marks.reason_word(job.reason),
        "why": marks.REASONS.get(job.reason, ""),
        "remedy": marks.REMEDIES.get(job.reason, "") if job.state == DEAD else "",
        "error": inert(job.error, limit=TEXT_CHARS),
        "facts": [(label, inert(str(text))) for label, text in _facts(job, type_row) if text],
        "who": _who(job, events),
        "again": _again(job, type_row),
        "links": _links(job, type_row),
        "gantt": rows,
        "axis": gantt.axis(rows),
        "steps": [_step(step) for step in steps],
        "missing": _not_begun(type_row, steps) if job.state in OPEN else [],
        "events": [_event(one, before) for one, before in zip(events, [None, *events])],  # noqa: B905
        "more_events": len(newest) > EVENTS_SHOWN,
        "payload": json_html(job.payload),
        "result": json_html(job.result) if job.result is not None else "",
    }


def _headline(job: Job, type_row: JobType | None, steps: Sequence[JobStep], now: datetime) -> str:
    """What it does now, in a sentence."""
    if job.state == SCHEDULED:
        left = (job.run_at - now).total_seconds()
        then = f"in {duration(left)}" if left > 0 else "now"
        again = f" (attempt {job.attempts + 1})" if job.claim else ""
        why = next(filter(None, (held.told(one.error) for one in steps)), None)
        if why is not None:
            service, unusable, said = why
            word = "cannot be called" if unusable else "is not called now"
            return f"It waits: {service} {word} ({said}). It is looked at again {then}."
        return f"It is to run {then}{again}."
    if job.state == QUEUED:
        waited = max(0.0, (now - job.run_at).total_seconds())
        most = type_row.max_concurrent if type_row is not None else None
        if most and counting.counts().of(RUNNING, job.type_id) >= most:
            return (
                f"It has waited for {duration(waited)}: at most {most:,} of its type run at once."
            )
        return f"It has waited for a worker for {duration(waited)}."
    if job.state == RUNNING:
        since = f" for {duration((now - job.started_at).total_seconds())}" if job.started_at else ""
        asked = "; it was asked to cancel" if job.cancel_asked_at else ""
        return f"Worker {inert(job.worker) or 'not known'} has it{since}{asked}."
    if job.finished_at is not None:
        whole = duration((job.finished_at - job.created_at).total_seconds())
        return f"It ended {whole} after it was submitted."
    return ""


def _who(job: Job, events: Sequence[JobEvent]) -> str:
    """By whose word it ended, and when."""
    if job.state not in (CANCELLED, DISCARDED):
        return ""
    said = next((one for one in reversed(events) if one.text and one.state == job.state), None)
    asked = next((one for one in reversed(events) if "asked to cancel" in one.text), None)
    one = asked or said
    return f"{inert(one.text, limit=300)}, {_at(one.at)} UTC" if one is not None else ""


def _again(job: Job, type_row: JobType | None) -> str:
    """Where another job of this payload is submitted; "" where its type is gone."""
    if type_row is None:
        return ""
    return reverse("admin:jobs_jobtype_submit", args=[type_row.pk], query={"like": str(job.pk)})


def _at(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S.%f}"[:-3] if moment else ""


def _facts(job: Job, type_row: JobType | None) -> list[tuple[str, Any]]:
    of = f" of {type_row.max_attempts}" if type_row is not None else ""
    return [
        ("Attempts spent", f"{job.attempts}{of}"),
        ("Times claimed", job.claim),
        ("Asked for again", job.retries),
        ("Priority", str(job.priority)),
        ("Tenant", job.tenant),
        ("Correlation id", job.correlation_id),
        ("Service", job.service),
        ("Submitted (UTC)", _at(job.created_at)),
        ("Submitted by", job.submitted_by),
        ("Schedule", job.schedule),
        ("To run at (UTC)", _at(job.run_at) if job.run_at != job.created_at else ""),
        ("Deadline (UTC)", _at(job.deadline_at)),
        ("Last attempt began (UTC)", _at(job.started_at)),
        ("Ended (UTC)", _at(job.finished_at)),
        ("Worker", job.worker),
        ("Runner", job.runner),
        ("Request id", job.request_id),
        ("Traceparent", job.traceparent),
        ("Webhook", job.webhook_url),
    ]


def _links(job: Job, type_row: JobType | None) -> list[tuple[str, str]]:
    found = []
    if type_row is not None:
        found.append(("Its type", reverse("admin:jobs_jobtype_change", args=[type_row.pk])))
        found.append(("Other jobs of its type", jobs_url(type=type_row.name)))
    if job.correlation_id:
        query = urlencode({"correlation_id": job.correlation_id})
        found.append(
            ("Jobs with its correlation id", f"{reverse('admin:jobs_job_changelist')}?{query}")
        )
    if job.service:
        query = urlencode({"service": job.service})
        found.append(("Jobs of its service", f"{reverse('admin:jobs_job_changelist')}?{query}"))
    return found


def _step(step: JobStep) -> dict[str, Any]:
    return {
        "step": step,
        "mark": marks.state_mark(step.state),
        "took": duration(step.duration_ms / 1000) if step.duration_ms is not None else "",
        "began": f"{step.started_at:%H:%M:%S.%f}"[:-3] if step.started_at else "",
        "error": inert(step.error, limit=TEXT_CHARS),
        "result": _result(step.result),
    }


def _result(result: Any) -> SafeString | str:
    return json_html(result) if result is not None else ""


def _not_begun(type_row: JobType | None, steps: Sequence[JobStep]) -> list[str]:
    if type_row is None:
        return []
    begun = {step.name for step in steps}
    return [name for name in type_row.steps.values_list("name", flat=True) if name not in begun]


def _event(event: JobEvent, before: JobEvent | None) -> dict[str, Any]:
    later = (event.at - before.at).total_seconds() if before is not None else None
    return {
        "event": event,
        "mark": marks.state_mark(event.state),
        "later": f"+{duration(later)}" if later is not None and later >= 0 else "",
        "text": inert(event.text, limit=TEXT_CHARS),
        "worker": one_line(event.worker, limit=64),
    }
