"""Writes as they are put into rows: one for each job and claim, checked before any is sent.

A committer's round may hold several writes of one job: that its step began, and then that the job
ended.  They become one row, so that a statement touches no job twice.  A write that no database
would keep becomes the job's end, with the reason: another attempt would have the same to say, and
its neighbours are not held up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from jobs.states import DEAD, PERMANENT, STEP_FAILED
from jobs.store.protocol import Again, Ended, StepRecord, Write
from jobs.store.values import Unstorable, json_or_null, text

PROGRESS, AGAIN = "progress", "again"
_WORKER_CHARS, _REASON_CHARS = 64, 16


@dataclass(slots=True, kw_only=True)
class StepRow:
    name: str
    stage: int
    state: str
    attempts: int
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: float | None
    status_code: int | None
    result: str | None
    error: str


@dataclass(slots=True, kw_only=True)
class WriteRow:
    """`state` is a finished one, or PROGRESS or AGAIN.  `members` are the writes it stands for."""

    id: UUID
    claim: int
    state: str = PROGRESS
    reason: str = ""
    worker: str = ""
    result: str | None = None
    error: str = ""
    text: str = ""
    spent: int = 0
    delay_s: float = 0.0
    ran_s: float = 0.0
    webhook: Mapping[str, Any] | None = None
    steps: list[StepRow] = field(default_factory=list)
    members: list[int] = field(default_factory=list)


def rows_of(writes: Sequence[Write]) -> list[WriteRow]:
    """One row for each job and claim, in the order in which they first appear."""
    groups: dict[tuple[UUID, int], tuple[list[int], dict[str, StepRecord]]] = {}
    ends: dict[tuple[UUID, int], Ended | Again] = {}
    for index, write in enumerate(writes):
        key = write.id, write.claim
        if key in ends:
            continue  # the job was out of the runner's hands by then
        members, steps = groups.setdefault(key, ([], {}))
        members.append(index)
        for step in write.steps:
            steps[step.name] = step
        if isinstance(write, Ended | Again):
            ends[key] = write
    return [
        _row(key, ends.get(key), list(steps.values()), members)
        for key, (members, steps) in groups.items()
    ]


def _row(
    key: tuple[UUID, int],
    end: Ended | Again | None,
    steps: list[StepRecord],
    members: list[int],
) -> WriteRow:
    row = WriteRow(id=key[0], claim=key[1], members=members)
    try:
        row.steps = [_step(step) for step in steps]
        if isinstance(end, Ended):
            row.result = json_or_null(end.result, what="the result")
    except Unstorable as error:
        return refused(row, str(error), end, steps)
    if end is None:
        return row
    row.worker = text(end.worker, _WORKER_CHARS)
    row.error, row.text = text(end.error), text(end.text or end.error)
    row.spent = int(end.spent)
    if isinstance(end, Ended):
        row.state, row.reason = end.state, end.reason[:_REASON_CHARS]
        row.ran_s, row.webhook = end.ran_s, end.webhook
    else:
        row.state, row.delay_s = AGAIN, end.delay_s
    return row


def _step(step: StepRecord) -> StepRow:
    return StepRow(
        name=step.name,
        stage=step.stage,
        state=step.state,
        attempts=step.attempts,
        started_at=step.started_at,
        finished_at=step.finished_at,
        duration_ms=step.duration_ms,
        status_code=step.status_code,
        result=json_or_null(step.result, what=f"the result of step {step.name}"),
        error=text(step.error),
    )


def refused(
    row: WriteRow, why: str, end: Ended | Again | None = None, steps: Sequence[StepRecord] = ()
) -> WriteRow:
    """The job's end instead of a write that cannot be kept; it stands for none of the writes."""
    said = text(f"what the job had to say cannot be kept: {why}")
    kept: list[StepRow] = []
    for step in steps:
        try:
            kept.append(_step(step))
        except Unstorable as error:
            kept.append(
                StepRow(
                    name=step.name,
                    stage=step.stage,
                    state=STEP_FAILED,
                    attempts=step.attempts,
                    started_at=step.started_at,
                    finished_at=step.finished_at,
                    duration_ms=step.duration_ms,
                    status_code=step.status_code,
                    result=None,
                    error=text(str(error)),
                )
            )
    return WriteRow(
        id=row.id,
        claim=row.claim,
        state=DEAD,
        reason=PERMANENT,
        worker=row.worker or (text(end.worker, _WORKER_CHARS) if end is not None else ""),
        error=said,
        text=said,
        spent=1,
        ran_s=end.ran_s if isinstance(end, Ended) else row.ran_s,
        steps=kept,
    )
