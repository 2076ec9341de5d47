"""What an operator's or a client's word does to a job, by the state that it is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jobs.states import (
    ASKED,
    CANCELLED,
    DEAD,
    DISCARDED,
    HIGHEST_PRIORITY,
    LOWEST_PRIORITY,
    OPEN,
    QUEUED,
    RUNNING,
    SCHEDULED,
)
from jobs.store.protocol import Verb

TEXTS: Mapping[Verb, str] = {
    "cancel": "cancelled by {by}",
    "retry": "retried by {by}",
    "reprioritise": "priority {priority}, by {by}",
    "discard": "discarded by {by}",
}
RUN_NOW = "run before its time, asked by {by}"
CANCEL_ASKED = "{by} asked to cancel it"
_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """The job's new state, the fields that change with it, and what the event says."""

    state: str
    fields: Mapping[str, Any]
    text: str
    asked: bool = False
    again: bool = False  # its steps that failed are to be called anew


def own_attempt(job: Any) -> int:
    """The attempt that a word about the job is about: the one that goes on, or the last."""
    attempts: int = job.attempts
    return attempts + 1 if job.state == RUNNING else attempts


def move(
    verb: Verb,
    job: Any,
    *,
    by: str,
    args: Mapping[str, Any],
    now: datetime,
    deadline_s: float | None,
) -> Move | None:
    """None when it cannot be done to the job, or was done before.  Raises ValueError.

    `job` has the fields of `jobs.store.models.Job`.
    """
    by = by[:_CHARS] or "somebody"
    if verb == "cancel":
        return _cancel(job, by, now)
    if verb == "retry":
        return _retry(job, by, now, deadline_s)
    if verb == "discard":
        if job.state != DEAD:
            return None
        return Move(state=DISCARDED, fields={}, text=TEXTS[verb].format(by=by))
    if verb == "reprioritise":
        priority = args.get("priority")
        if not isinstance(priority, int) or not LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY:
            raise ValueError(
                f"A priority is a number from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}, "
                f"not {priority!r}."
            )
        if job.state not in OPEN or job.priority == priority:
            return None
        said = TEXTS[verb].format(priority=priority, by=by)
        return Move(state=job.state, fields={"priority": priority}, text=said)
    raise ValueError(f"Unknown action {verb!r}.")


def _cancel(job: Any, by: str, now: datetime) -> Move | None:
    if job.state == RUNNING and job.cancel_asked_at is None:
        fields = {"cancel_asked_at": now}
        return Move(state=RUNNING, fields=fields, text=CANCEL_ASKED.format(by=by), asked=True)
    if job.state not in (SCHEDULED, QUEUED):
        return None
    return Move(
        state=CANCELLED,
        fields={"reason": ASKED, "finished_at": now, "cancel_asked_at": now},
        text=TEXTS["cancel"].format(by=by),
    )


def _retry(job: Any, by: str, now: datetime, deadline_s: float | None) -> Move | None:
    # One that waits for its next attempt, or for its time, is not made to wait any longer.
    waits = job.state == SCHEDULED
    if job.state not in (DEAD, CANCELLED) and not waits:
        return None
    fields: dict[str, Any] = {"run_at": now}
    if not waits:
        fields |= {
            "attempts": 0,
            "retries": job.retries + 1,
            "reason": "",
            "result": None,
            "finished_at": None,
            "cancel_asked_at": None,
            "deadline_at": None if deadline_s is None else now + timedelta(seconds=deadline_s),
        }
    said = RUN_NOW if waits and not job.claim else TEXTS["retry"]
    return Move(state=QUEUED, fields=fields, text=said.format(by=by), again=not waits)
