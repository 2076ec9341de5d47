"""From what came of a run to what is written: webhooks go with it, and nothing is left unsaid.

A job must not stay in a living runner's hands for ever because what became of it could not be
written: what the database will not take is replaced by something it will.  Runs on workers' threads
and, for what it begins without waiting, on the keeper's and the scaler's.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from django.db import DataError

from jobs.execution.interruption import CANCEL, DEADLINE, LOST, STOP
from jobs.running.committer import Committer
from jobs.states import ASKED, ATTEMPTS, CANCELLED, DEAD, PERMANENT
from jobs.states import DEADLINE as DEADLINE_REASON
from jobs.store.protocol import Again, Claimed, Ended
from jobs.types.spec import TypeSpec

logger = logging.getLogger(__name__)

# How often a write is tried that fails for no known reason, each time PAUSE_S longer.
TRIES, PAUSE_S = 8, 0.5

Compose = Callable[[Claimed, TypeSpec, Ended], Mapping[str, Any] | None]


def no_webhook(job: Claimed, spec: TypeSpec, ended: Ended) -> Mapping[str, Any] | None:
    return None


class Settling:
    def __init__(
        self,
        *,
        compose: Compose = no_webhook,
        jitter: Callable[[], float] = random.random,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._compose = compose
        self._jitter = jitter
        self._pause = pause

    # --- what to write ---------------------------------------------------------------------

    def of_error(
        self, job: Claimed, spec: TypeSpec, error: BaseException, *, worker: str
    ) -> Ended | Again:
        """The run itself failed, which is nobody's fault but ours: as any failure that may pass."""
        decision = spec.retry.decide(
            error, attempt=job.attempts + 1, age_s=0.0, jitter=self._jitter
        )
        text = f"the runner failed: {type(error).__name__}: {error}"[:2000]
        if job.attempts + 1 >= spec.max_attempts or not decision.retry:
            return Ended(
                id=job.id, claim=job.claim, state=DEAD, reason=ATTEMPTS, worker=worker, error=text
            )
        return Again(
            id=job.id,
            claim=job.claim,
            worker=worker,
            delay_s=decision.delay_s,
            error=text,
            text=text,
        )

    def of_hung(
        self, job: Claimed, spec: TypeSpec, why: str, *, worker: str
    ) -> Ended | Again | None:
        """A run that was told to end and did not."""
        text = "a step did not end when it was told to"
        if why == LOST:
            return None
        if why == CANCEL:
            return Ended(
                id=job.id, claim=job.claim, state=CANCELLED, reason=ASKED, worker=worker, error=text
            )
        if why == DEADLINE:
            return Ended(
                id=job.id,
                claim=job.claim,
                state=DEAD,
                reason=DEADLINE_REASON,
                worker=worker,
                error=f"the job's deadline passed, and {text}",
            )
        return Again(id=job.id, claim=job.claim, worker=worker, spent=why != STOP, text=text)

    def gone(self, type_id: int) -> TypeSpec:
        """Stands for a type that went away."""
        return TypeSpec(id=type_id, name=f"(type {type_id})")

    # --- writing it ------------------------------------------------------------------------

    def settle(
        self, committer: Committer, job: Claimed, spec: TypeSpec, outcome: Ended | Again
    ) -> bool:
        """Write it and wait until it is kept; False when the claim is another's by now.

        What the database refuses for what it holds is replaced by an end that says so.  Any other
        error is somebody's mistake, perhaps one that is mended: it is tried again for a while.
        """
        wanted: Ended | Again = self._with_webhook(job, spec, outcome)
        tries = 0
        while True:
            try:
                return committer.hand_in(wanted)
            except Exception as error:
                tries += 1
                if isinstance(error, DataError | ValueError) or tries > TRIES:
                    wanted = Ended(
                        id=job.id,
                        claim=job.claim,
                        state=DEAD,
                        reason=PERMANENT,
                        worker=wanted.worker,
                        error=f"what became of it cannot be written: {type(error).__name__}",
                    )
                if tries > 1:
                    self._pause(min(tries, TRIES) * PAUSE_S)

    def begin(
        self,
        committer: Committer,
        job: Claimed,
        spec: TypeSpec,
        outcome: Ended | Again,
        *,
        then: Callable[[bool], None],
    ) -> None:
        """Write it with what comes next; `then` is told whether it was kept."""
        committer.hand_in(self._with_webhook(job, spec, outcome), wait=False, then=then)

    def _with_webhook(self, job: Claimed, spec: TypeSpec, outcome: Ended | Again) -> Ended | Again:
        if not isinstance(outcome, Ended) or not (job.webhook_url or spec.webhook_url):
            return outcome
        try:
            return replace(outcome, webhook=self._compose(job, spec, outcome))
        except Exception:
            logger.exception("a webhook could not be composed", extra={"job_id": str(job.id)})
            return outcome
