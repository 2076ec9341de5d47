"""A job as answers tell of it: short in a list, whole by itself.

Where its webhook goes is not told, as such addresses often hold a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from jobs.api.moments import stamp
from jobs.ids import submitted_at
from jobs.store.models import Job, JobEvent, JobStep

MAX_EVENTS = 200


def listed(job: Job, type_name: str) -> dict[str, Any]:
    return {
        "id": str(job.id),
        "type": type_name,
        "status": job.state,
        "reason": job.reason,
        "tenant": job.tenant,
        "priority": job.priority,
        "correlation_id": job.correlation_id,
        "service": job.service,
        "schedule": job.schedule,
        "attempts": job.attempts,
        "retries": job.retries,
        "submitted_at": stamp(submitted_at(job.id)),
        "run_at": stamp(job.run_at),
        "deadline": stamp(job.deadline_at),
        "started_at": stamp(job.started_at),
        "finished_at": stamp(job.finished_at),
        "cancel_asked_at": stamp(job.cancel_asked_at),
        "error": job.error,
    }


def whole(
    job: Job, type_name: str, steps: Sequence[JobStep], events: Sequence[JobEvent]
) -> dict[str, Any]:
    """`events` in order, the last `MAX_EVENTS` and one more where there are earlier ones."""
    return {
        **listed(job, type_name),
        "payload": job.payload,
        "result": job.result,
        "webhook": bool(job.webhook_url),
        "timings": {
            "waited_s": _seconds(job.run_at, job.started_at),
            "ran_s": _seconds(job.started_at, job.finished_at),
            "total_s": _seconds(submitted_at(job.id), job.finished_at),
        },
        "steps": [_step(step) for step in steps],
        "events": [_event(event) for event in events[-MAX_EVENTS:]],
        "events_omitted": len(events) > MAX_EVENTS,
    }


def _step(step: JobStep) -> dict[str, Any]:
    return {
        "name": step.name,
        "stage": step.stage,
        "status": step.state,
        "attempts": step.attempts,
        "started_at": stamp(step.started_at),
        "finished_at": stamp(step.finished_at),
        "duration_ms": step.duration_ms,
        "status_code": step.status_code,
        "result": step.result,
        "error": step.error,
    }


def _event(event: JobEvent) -> dict[str, Any]:
    return {
        "at": stamp(event.at),
        "status": event.state,
        "attempt": event.attempt,
        "worker": event.worker,
        "text": event.text,
    }


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    """Clocks of two machines may differ by a little; none went backwards."""
    if start is None or end is None:
        return None
    return round(max(0.0, (end - start).total_seconds()), 6)
