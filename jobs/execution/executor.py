"""Runs one attempt of one job on the worker's thread, and says what is to be written of it.

Safe from any thread: each run keeps what it needs to itself; only the pool of helpers is shared.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

from jobs import tracing
from jobs.execution.attempt import AttemptRun, Record
from jobs.execution.handlers import Handlers
from jobs.execution.interruption import Interruption
from jobs.execution.pool import StepPool
from jobs.execution.stepcall import UNUSABLE_S, CallFn, StepCaller
from jobs.states import DEAD, SUCCEEDED
from jobs.store.protocol import Again, Claimed, Ended
from jobs.types.spec import TypeSpec
from pipeline.runtime.clock import Clock

logger = logging.getLogger(__name__)

STEP_THREADS = 64


class Executor:
    """`call` is `Downstreams.call`; `step_threads` help with steps that run at the same time."""

    def __init__(
        self,
        *,
        call: CallFn,
        handlers: Handlers,
        clock: Clock,
        max_result_bytes: int = 256 * 1024,
        step_threads: int = STEP_THREADS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._caller = StepCaller(
            call=call, handlers=handlers, clock=clock, max_result_bytes=max_result_bytes
        )
        self.pool = StepPool(max_threads=step_threads, clock=clock)

    def run(
        self,
        job: Claimed,
        type: TypeSpec,
        *,
        worker: str,
        record: Record,
        interruption: Interruption,
        claimed_at: float | None = None,
    ) -> Ended | Again | None:
        """What is to be written; None where the claim was lost.

        `claimed_at` (monotonic) is what the job's deadline counts from; None: now.
        """
        if not type.steps:
            with tracing.attempt_span(job, type.name, worker):
                return _nothing_to_do(job, worker)
        with tracing.log_fields(job, worker), tracing.attempt_span(job, type.name, worker) as span:
            attempt = AttemptRun(
                job=job,
                spec=type,
                worker=worker,
                record=record,
                interruption=interruption,
                caller=self._caller,
                pool=self.pool,
                clock=self._clock,
                claimed_at=self._clock.monotonic() if claimed_at is None else claimed_at,
                jitter=self._jitter,
            )
            try:
                done = attempt.run()
            except ValueError as error:
                # Its type was written past its checks: only an edit mends that.
                done = Again(
                    id=job.id,
                    claim=job.claim,
                    worker=worker,
                    delay_s=UNUSABLE_S,
                    spent=False,
                    text=f"its type cannot be used: {error}",
                )
            if done is not None and not isinstance(done, Again) and done.state == DEAD:
                tracing.failed(span, done.error)
            _tell(done, type.name)
            return done

    def close(self, timeout_s: float = 1.0) -> bool:
        """Give the helpers back; True when all ended in time."""
        return self.pool.close(timeout_s)


def _nothing_to_do(job: Claimed, worker: str) -> Ended:
    """A type without steps: its jobs are done when they are begun."""
    return Ended(
        id=job.id,
        claim=job.claim,
        state=SUCCEEDED,
        worker=worker,
        result={"steps": {}, "failed": {}},
    )


def _tell(done: Ended | Again | None, type_name: str) -> None:
    if done is None:
        logger.warning("the job is another runner's by now; nothing of this run is written")
    elif isinstance(done, Again):
        logger.info(
            "job goes back",
            extra={
                "type": type_name,
                "spent": done.spent,
                "delay_s": round(done.delay_s, 3),
                "why": done.text,
            },
        )
    elif done.state == DEAD:
        logger.warning(
            "job is dead",
            extra={"type": type_name, "reason": done.reason, "error": done.error},
        )
    else:
        logger.debug("job ended", extra={"type": type_name, "state": done.state})
