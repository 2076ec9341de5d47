"""One attempt of one job: its stages in order, the steps of a stage at the same time.

The worker's own thread runs steps, and helpers of the pool with it.  `_lock` guards the records,
what runs and what was decided; steps are called and progress is handed in without it.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from jobs import tracing
from jobs.execution import aggregation, outcome, templates
from jobs.execution.interruption import (
    DEADLINE,
    DECIDED,
    LOST,
    Interruption,
)
from jobs.execution.outcome import Hindrance
from jobs.execution.pool import StepPool
from jobs.execution.stepcall import StepCaller
from jobs.execution.stepend import Called, failed, told
from jobs.states import (
    STEP_FAILED,
    STEP_RUNNING,
    STEP_SUCCEEDED,
)
from jobs.store.protocol import Again, Claimed, Ended, Progress, StepRecord
from jobs.types.spec import StepSpec, TypeSpec
from pipeline.runtime.clock import Clock

logger = logging.getLogger(__name__)

# So long those are waited for that were told to end; what hangs longer is left to itself.
LINGER_S = 2.0
_ENDED = (STEP_SUCCEEDED, STEP_FAILED)


class Record(Protocol):
    """Hands progress in to be written, and where `wait`, waits for it; False: fenced off."""

    def __call__(self, progress: Progress, wait: bool, /) -> bool: ...


class AttemptRun:
    def __init__(
        self,
        *,
        job: Claimed,
        spec: TypeSpec,
        worker: str,
        record: Record,
        interruption: Interruption,
        caller: StepCaller,
        pool: StepPool,
        clock: Clock,
        claimed_at: float,
        jitter: Callable[[], float],
    ) -> None:
        self._job = job
        self._spec = spec
        self._worker = worker
        self._record = record
        self._interruption = interruption
        self._caller = caller
        self._pool = pool
        self._clock = clock
        self._jitter = jitter
        self._began_at = clock.monotonic()
        self._due = None if job.deadline_in_s is None else claimed_at + job.deadline_in_s
        self._last = job.attempts + 1 >= spec.max_attempts
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._records: dict[str, StepRecord] = dict(job.steps)
        self._unsaid: dict[str, StepRecord] = {}
        self._hindrances: dict[str, Hindrance] = {}
        self._running: dict[str, Interruption] = {}
        self._waiting: deque[StepSpec] = deque()
        self._began = self._exhausted = self._over = False
        self._verdict: str | None = None
        self._why = ""

    # --- the worker's thread ---------------------------------------------------------------

    def run(self) -> Ended | Again | None:
        self._verdict = aggregation.decided(self._spec, self._records)
        if self._verdict is None and not self._is_late():
            with self._interruption.telling(self._tell):
                self._stages()
        with self._lock:
            self._over = True
            if self._why == LOST:
                return None
            return outcome.of(
                outcome.Attempt(
                    job=self._job,
                    spec=self._spec,
                    worker=self._worker,
                    records=dict(self._records),
                    unsaid=list(self._unsaid.values()),
                    hindrances=list(self._hindrances.values()),
                    exhausted=self._exhausted,
                    began=self._began,
                    why=self._why,
                    left_s=None if self._due is None else self._due - self._clock.monotonic(),
                    ran_s=self._clock.monotonic() - self._began_at,
                ),
                jitter=self._jitter,
            )

    def _stages(self) -> None:
        waits = aggregation.waits_for_stages(self._spec)
        for stage in sorted({step.stage for step in self._spec.steps}):
            steps = [one for one in self._spec.steps if one.stage == stage and self._is_due(one)]
            if self._verdict or self._why or self._is_late():
                return
            if steps:
                self._stage(steps)
            if waits and not all(self._has_ended(one.name) for one in steps):
                return

    def _is_due(self, step: StepSpec) -> bool:
        """Whether it has not ended, and what its templates need has."""
        if self._has_ended(step.name):
            return False
        needed = templates.steps_referred_to(step)
        return all(
            self._has_ended(one.name)
            for one in self._spec.steps
            if one.stage < step.stage and one.name in needed
        )

    def _has_ended(self, name: str) -> bool:
        record = self._records.get(name)
        return record is not None and record.state in _ENDED

    def _is_late(self) -> bool:
        return self._due is not None and self._clock.monotonic() >= self._due

    def _stage(self, steps: list[StepSpec]) -> None:
        with self._lock:
            # The worker's own thread takes what can be interrupted, so that it is free when the
            # job is decided by another step; a function that hangs is left behind on a helper.
            self._waiting.extend(sorted(steps, key=lambda one: one.downstream is None))
        offered: list[Callable[[], None]] = []
        for _ in steps[1:]:
            context = contextvars.copy_context()
            offered.append(_in_context(context, self._work))
            self._pool.offer(offered[-1])
        try:
            self._work()
        finally:
            for one in offered:
                self._pool.withdraw(one)
        self._await_others()

    def _await_others(self) -> None:
        """Until no helper has a step; those that were told to end are not waited for long."""
        told_at: float | None = None
        while True:
            with self._lock:
                if not self._running:
                    return
                now = self._clock.monotonic()
                if (self._verdict or self._why) and told_at is None:
                    told_at = now
                ends = told_at + LINGER_S if told_at is not None else self._due
                if ends is None or now < ends:
                    self._clock.wait(self._changed, None if ends is None else ends - now)
                    continue
                if told_at is not None:
                    self._leave_behind()
                    return
            self._interruption.interrupt(DEADLINE)

    def _leave_behind(self) -> None:
        """Go on without those that do not end: what they bring is not looked at any more."""
        self._over = True
        why = self._why or DECIDED
        for name in self._running:
            logger.warning("a step does not end when told to", extra={"step": name, "why": why})
            record = told(self._records[name], why)
            error = f"{record.error}, and did not end"
            self._note(replace(record, finished_at=self._now(), error=error))
        self._running.clear()

    # --- any thread ------------------------------------------------------------------------

    def _tell(self) -> None:
        """The job's run was interrupted: so are its steps."""
        with self._lock:
            self._why = self._why or self._interruption.why
            why, running = self._why, list(self._running.values())
            self._changed.notify_all()
        for one in running:
            one.interrupt(why)

    def _lose(self) -> None:
        """Another holds the job by now: nothing of this run counts."""
        with self._lock:
            self._why = LOST
            running = list(self._running.values())
            self._changed.notify_all()
        for one in running:
            one.interrupt(LOST)

    def _work(self) -> None:
        """Run steps of the stage until none waits."""
        while (taken := self._take()) is not None:
            step, began, interruption = taken
            # Not waited for: it only lets the admin say what runs.
            if not self._say([began], wait=False):
                self._lose()
            self._settle(self._call(step, began, interruption))

    def _take(self) -> tuple[StepSpec, StepRecord, Interruption] | None:
        with self._lock:
            if self._verdict or self._why or self._over or not self._waiting:
                self._waiting.clear()
                return None
            step = self._waiting.popleft()
            before = self._records.get(step.name)
            began = StepRecord(
                name=step.name,
                state=STEP_RUNNING,
                stage=step.stage,
                attempts=(before.attempts if before else 0) + 1,
                started_at=self._now(),
            )
            interruption = Interruption(clock=self._clock)
            self._running[step.name] = interruption
            self._records[step.name] = began
            return step, began, interruption

    def _call(self, step: StepSpec, began: StepRecord, interruption: Interruption) -> Called:
        started = self._clock.monotonic()
        with tracing.step_span(step.name) as span:
            try:
                brought = self._caller.call(
                    step,
                    self._job,
                    self._found(step),
                    due=self._due,
                    interruption=interruption,
                    type_name=self._spec.name,
                )
            except Exception as error:
                called = failed(
                    error,
                    step=step.name,
                    began=began,
                    word=interruption.why or (DEADLINE if self._is_late() else ""),
                    number=self._job.attempts + 1,
                    last=self._last,
                )
                tracing.failed(span, called.record.error)
            else:
                called = Called(
                    record=replace(
                        began,
                        state=STEP_SUCCEEDED,
                        result=brought.result,
                        status_code=brought.status,
                    )
                )
        took_ms = (self._clock.monotonic() - started) * 1000
        record = replace(called.record, finished_at=self._now(), duration_ms=round(took_ms, 3))
        return replace(called, record=record)

    def _found(self, step: StepSpec) -> dict[str, object]:
        """What the steps of earlier stages brought."""
        earlier = [one.name for one in self._spec.steps if one.stage < step.stage]
        with self._lock:
            records = [self._records[name] for name in earlier if name in self._records]
        return {one.name: one.result for one in records if one.state == STEP_SUCCEEDED}

    def _settle(self, called: Called) -> None:
        name = called.record.name
        with self._lock:
            if self._over or name not in self._running:
                return
            del self._running[name]
            self._note(called.record)
            if called.hindrance is not None:
                self._hindrances[name] = called.hindrance
            self._began |= called.hindrance is None or not called.hindrance.held
            self._exhausted |= called.exhausted
            self._verdict = self._verdict or aggregation.decided(self._spec, self._records)
            decided, others = self._verdict is not None, list(self._running.values())
            unsaid: list[StepRecord] = []
            if others or not self._is_last(called.record.stage):
                unsaid, self._unsaid = list(self._unsaid.values()), {}
            self._changed.notify_all()
        if decided:
            for other in others:
                other.interrupt(DECIDED)
        if unsaid and not self._say(unsaid, wait=True):
            self._lose()

    def _is_last(self, stage: int) -> bool:
        """Whether nothing is begun any more, so that what ended is written with the outcome."""
        if self._verdict or self._why:
            return True
        if self._waiting:
            return False
        if self._hindrances and aggregation.waits_for_stages(self._spec):
            return True
        return all(one.stage <= stage or self._has_ended(one.name) for one in self._spec.steps)

    def _note(self, record: StepRecord) -> None:
        self._records[record.name] = record
        self._unsaid[record.name] = record

    def _say(self, records: list[StepRecord], *, wait: bool) -> bool:
        """Hand them in; False when the job is another's by now."""
        progress = Progress(id=self._job.id, claim=self._job.claim, steps=tuple(records))
        try:
            return self._record(progress, wait)
        except Exception:
            logger.exception("progress could not be written; it is written with the outcome")
            with self._lock:
                for one in records:
                    if self._records.get(one.name) is one:
                        self._unsaid.setdefault(one.name, one)
            return True

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time_us() / 1_000_000, tz=UTC)


def _in_context(context: contextvars.Context, work: Callable[[], None]) -> Callable[[], None]:
    """Work for another thread, with this one's log fields and span."""
    return lambda: context.run(work)
