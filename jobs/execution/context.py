"""What a handler is given: the job, what earlier steps brought, and when to stop.

Belongs to the thread that runs the handler.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from jobs.execution.interruption import DEADLINE, Interrupted, Interruption
from pipeline.errors import RetryableError
from pipeline.runtime.clock import Clock


class StepContext:
    """`token` is the same in every attempt: send it wherever an effect must happen only once.

    `payload` and `results` are the handler's own copies.  A handler that takes long calls `check`
    between its parts and `wait` instead of sleeping, so that a cancellation, a stop or a deadline
    reaches it.
    """

    def __init__(
        self,
        *,
        job_id: UUID,
        step: str,
        payload: Any,
        results: Mapping[str, Any],
        token: str,
        correlation_id: str,
        tenant: str,
        attempt: int,
        interruption: Interruption,
        clock: Clock,
        job_due: float | None,
        step_due: float | None,
    ) -> None:
        self.job_id = job_id
        self.step = step
        self.token = token
        self.correlation_id = correlation_id
        self.tenant = tenant
        self.attempt = attempt
        self._payload, self._payload_copied = payload, False
        self._results, self._results_copied = results, False
        self._interruption = interruption
        self._clock = clock
        self._job_due = job_due
        self._step_due = step_due

    @property
    def payload(self) -> Any:
        if not self._payload_copied:
            self._payload, self._payload_copied = copy.deepcopy(self._payload), True
        return self._payload

    @property
    def results(self) -> Mapping[str, Any]:
        """By the name of the step, of those that succeeded before this one began."""
        if not self._results_copied:
            self._results, self._results_copied = copy.deepcopy(dict(self._results)), True
        return self._results

    def left_s(self) -> float | None:
        """Seconds until this step must have ended; None: as long as it takes."""
        dues = [due for due in (self._job_due, self._step_due) if due is not None]
        return max(0.0, min(dues) - self._clock.monotonic()) if dues else None

    def check(self) -> None:
        """Raises what ends the step where it was told to end, or its time is up."""
        self._interruption.check()
        now = self._clock.monotonic()
        if self._job_due is not None and now >= self._job_due:
            raise Interrupted(DEADLINE)
        if self._step_due is not None and now >= self._step_due:
            raise RetryableError("it had not ended within its timeout")

    def wait(self, seconds: float) -> None:
        """Wait so long; raises like `check` as soon as there is a reason."""
        left = self.left_s()
        self._interruption.wait(seconds if left is None else min(seconds, left))
        self.check()
