"""How a step's call ended when it brought nothing: for good, to be called again, or told to end.

Pure, but for a line in the log where a step fails as nobody expected.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from jobs.downstream.calls import Delayed
from jobs.execution.interruption import CANCEL, DEADLINE, DECIDED, STOP, Interrupted
from jobs.execution.outcome import Hindrance
from jobs.execution.results import said
from jobs.states import STEP_FAILED, STEP_RETRYING, STEP_SKIPPED
from jobs.store.protocol import StepRecord
from pipeline.errors import PermanentError, RetryableError

logger = logging.getLogger(__name__)

# Of a job past its deadline it is the outcome that says which steps failed.
_TOLD = {
    DECIDED: (STEP_SKIPPED, "the job was decided without it"),
    CANCEL: (STEP_SKIPPED, "the job was cancelled while it ran"),
    STOP: (STEP_RETRYING, "its runner stopped while it ran"),
    DEADLINE: (STEP_RETRYING, "the job's deadline passed while it ran"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """What came of one call: `hindrance` where the step is to be called again."""

    record: StepRecord
    hindrance: Hindrance | None = None
    exhausted: bool = False  # it failed for good because the attempt was the last


def told(began: StepRecord, why: str) -> StepRecord:
    """The record of a step that was told to end."""
    state, text = _TOLD.get(why, _TOLD[STOP])
    return replace(began, state=state, error=text)


def failed(
    error: Exception, *, step: str, began: StepRecord, word: str, number: int, last: bool
) -> Called:
    """`word` is what the step was told, if anything; `number` the attempt's."""
    if isinstance(error, Interrupted) and word:
        return Called(record=told(began, word))
    text = _text(step, error)
    if isinstance(error, Delayed):
        # It was not called, so that this is no attempt of it.
        record = replace(began, state=STEP_RETRYING, attempts=began.attempts - 1, error=text)
        hindrance = Hindrance(step=step, text=text, asked_s=error.delay_s, held=True)
        return Called(record=record, hindrance=hindrance)
    status = getattr(error, "status", None)
    record = replace(
        began,
        state=STEP_RETRYING,
        error=text,
        status_code=status if isinstance(status, int) else None,
    )
    if isinstance(error, PermanentError):
        return Called(record=replace(record, state=STEP_FAILED))
    if last:
        text = said(f"{text} (attempt {number}, the last)")
        return Called(record=replace(record, state=STEP_FAILED, error=text), exhausted=True)
    asked_s = error.retry_after_s if isinstance(error, RetryableError) else None
    return Called(
        record=record, hindrance=Hindrance(step=step, text=text, asked_s=asked_s, held=False)
    )


def _text(step: str, error: Exception) -> str:
    if isinstance(error, Delayed | RetryableError):
        return said(error)
    if isinstance(error, PermanentError):
        return said(str(error).removeprefix(f"step {step}: "))
    logger.warning("a step failed unexpectedly", extra={"step": step}, exc_info=error)
    return said(f"{type(error).__name__}: {error}")
