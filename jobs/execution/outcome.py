"""What becomes of a job after an attempt: it ended, or it goes back and when.  Pure functions."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from jobs.execution import aggregation
from jobs.execution.interruption import CANCEL, DEADLINE, STOP
from jobs.execution.results import said
from jobs.states import (
    ASKED,
    ATTEMPTS,
    CANCELLED,
    DEAD,
    PERMANENT,
    STEP_FAILED,
    STEP_RETRYING,
    STEP_RUNNING,
    STEP_SKIPPED,
    SUCCEEDED,
)
from jobs.states import DEADLINE as DEADLINE_REASON
from jobs.store.protocol import Again, Claimed, Ended, StepRecord
from jobs.types.spec import TypeSpec
from pipeline.delivery.retry import RETRY_AFTER_CAP_S
from pipeline.errors import RetryableError

# So much longer than asked for, at most: those who were told the same do not come back together.
JITTER = 0.25
MAX_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Hindrance:
    """Why a step did not end in this attempt.

    `held`: it was not called at all, and `asked_s` is when to come again; else it failed, and
    `asked_s` is the downstream service's own word on when, if it gave one.
    """

    step: str
    text: str
    asked_s: float | None
    held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What an attempt left behind; `unsaid` are the records that were not written down yet."""

    job: Claimed
    spec: TypeSpec
    worker: str
    records: Mapping[str, StepRecord]
    unsaid: Sequence[StepRecord]
    hindrances: Sequence[Hindrance]
    exhausted: bool  # a step failed for good because this attempt was the last
    began: bool  # a step was called
    why: str  # the word that ended it; "" where it ended by itself
    left_s: float | None
    ran_s: float


def of(attempt: Attempt, *, jitter: Callable[[], float] = random.random) -> Ended | Again:
    """What to write of it.  Raises ValueError where the type cannot be reckoned with."""
    verdict = aggregation.decided(attempt.spec, attempt.records)
    if verdict == SUCCEEDED:
        return _ended(attempt, SUCCEEDED)
    if verdict == DEAD:
        return _ended(attempt, DEAD, reason=_reason(attempt), error=_failures(attempt, STEP_FAILED))
    if attempt.why == CANCEL:
        return _ended(attempt, CANCELLED, reason=ASKED, error="cancelled while it ran")
    late = attempt.left_s is not None and attempt.left_s <= 0
    if attempt.why == DEADLINE or late:
        last = _failures(attempt, STEP_FAILED, STEP_RETRYING)
        error = "its deadline passed" + (f"; last, {last}" if last else "")
        return _ended(attempt, DEAD, reason=DEADLINE_REASON, error=error)
    if attempt.why == STOP:
        delay_s = _delay_s(attempt, jitter, least=0.0)
        return _again(attempt, delay_s=delay_s, spent=False, text="given back: its runner stops")
    job, spec = attempt.job, attempt.spec
    hindrances = attempt.hindrances
    text = "; ".join(f"step {one.step}: {one.text}" for one in hindrances[:MAX_NAMED])
    failed = not all(one.held for one in hindrances) or not hindrances
    # The last attempt is never spent on steps that could not be called in it.
    spent = failed and job.attempts + 1 < spec.max_attempts
    delay_s = _delay_s(attempt, jitter, least=spec.retry.base_s)
    return _again(attempt, delay_s=delay_s, spent=spent, text=text)


def _delay_s(attempt: Attempt, jitter: Callable[[], float], *, least: float) -> float:
    """When to come back; `least` where no step says."""
    job, spec = attempt.job, attempt.spec
    delays = [_asked_s(one, spec, job.attempts + 1, jitter) for one in attempt.hindrances]
    # Where some steps suffice, whichever may be called first could be the one.
    pick = max if aggregation.waits_for_stages(spec) else min
    delay_s = pick(delays, default=least)
    return delay_s if attempt.left_s is None else min(delay_s, attempt.left_s)


def _asked_s(
    hindrance: Hindrance, spec: TypeSpec, number: int, jitter: Callable[[], float]
) -> float:
    asked_s = hindrance.asked_s
    if hindrance.held:
        asked_s = min(max(asked_s or 0.0, 0.0), RETRY_AFTER_CAP_S)
        return asked_s * (1 + JITTER * jitter())
    error = RetryableError(hindrance.text, retry_after_s=asked_s)
    delay_s = spec.retry.decide(error, attempt=number, age_s=0.0, jitter=jitter).delay_s
    if asked_s is not None and delay_s <= min(asked_s, RETRY_AFTER_CAP_S):
        delay_s *= 1 + JITTER * jitter()
    return delay_s


def _reason(attempt: Attempt) -> str:
    return ATTEMPTS if attempt.exhausted else PERMANENT


def _failures(attempt: Attempt, *states: str) -> str:
    found = [f"step {one.name}: {one.error}" for one in _in_order(attempt) if one.state in states]
    if len(found) > MAX_NAMED:
        found = [*found[:MAX_NAMED], f"and {len(found) - MAX_NAMED} more"]
    return "; ".join(found)


def _in_order(attempt: Attempt) -> list[StepRecord]:
    names = [step.name for step in attempt.spec.steps]
    return [attempt.records[name] for name in names if name in attempt.records]


def _ended(attempt: Attempt, state: str, *, reason: str = "", error: str = "") -> Ended:
    job, spec = attempt.job, attempt.spec
    records = {one.name: _closed(one, reason) for one in _in_order(attempt)}
    unsaid = {one.name for one in attempt.unsaid}
    changed = [
        one for name, one in records.items() if name in unsaid or one != attempt.records[name]
    ]
    text = aggregation.summary(spec, records) if spec.steps else ""
    return Ended(
        id=job.id,
        claim=job.claim,
        state=state,
        worker=attempt.worker,
        reason=reason,
        result=aggregation.result(spec, records),
        error=said(error),
        text=said(f"{text}; {error}" if text and error else text or error),
        spent=attempt.began or (state == SUCCEEDED),
        ran_s=attempt.ran_s,
        steps=changed,
    )


def _closed(record: StepRecord, reason: str) -> StepRecord:
    """The record of a step in a job that is over."""
    if record.state not in (STEP_RETRYING, STEP_RUNNING):
        return record
    if reason == DEADLINE_REASON and record.state == STEP_RETRYING and record.attempts:
        return replace(record, state=STEP_FAILED)
    return replace(
        record, state=STEP_SKIPPED, error=record.error or "the job was decided without it"
    )


def _again(attempt: Attempt, *, delay_s: float, spent: bool, text: str) -> Again:
    failed = "; ".join(f"step {one.step}: {one.text}" for one in attempt.hindrances if not one.held)
    return Again(
        id=attempt.job.id,
        claim=attempt.job.claim,
        worker=attempt.worker,
        delay_s=delay_s,
        spent=spent,
        error=said(failed) if failed else "",
        text=said(text) if text else "",
        steps=tuple(attempt.unsaid),
    )
