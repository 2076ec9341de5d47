"""One call of one step: a downstream service is called, or a Python function run.

Runs on the worker's thread or a helper's; keeps nothing between calls.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from django.db import close_old_connections

from jobs import tracing
from jobs.downstream.calls import Answer, CallRequest, Delayed
from jobs.execution import results, templates
from jobs.execution.context import StepContext
from jobs.execution.handlers import HandlerError, Handlers
from jobs.execution.interruption import Interruption
from jobs.execution.references import Scope
from jobs.store.protocol import Claimed
from jobs.types.spec import DownstreamSpec, StepSpec
from pipeline.errors import RetryableError
from pipeline.runtime.clock import Clock

logger = logging.getLogger(__name__)

# How long a step waits whose configuration only an edit mends: its jobs are not to blame.
UNUSABLE_S = 60.0
OURS = ("idempotency-key", "x-correlation-id", "traceparent", "x-collector-job",
        "x-collector-attempt", "content-type", "content-length", "host", "transfer-encoding",
        "connection")  # fmt: skip


class CallFn(Protocol):
    """See `jobs.downstream.calls.Downstreams.call`."""

    def __call__(
        self,
        spec: DownstreamSpec,
        request: CallRequest,
        *,
        left_s: float,
        interruption: Interruption,
    ) -> Answer: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What a successful call brought."""

    result: Any
    status: int | None = None


class StepCaller:
    """Raises from `call` whatever says why it brought nothing: Delayed, RetryableError,
    PermanentError, Interrupted, or what a handler raised."""

    def __init__(
        self, *, call: CallFn, handlers: Handlers, clock: Clock, max_result_bytes: int
    ) -> None:
        self._call = call
        self._handlers = handlers
        self._clock = clock
        self._max_result_bytes = max_result_bytes

    def call(
        self,
        step: StepSpec,
        job: Claimed,
        found: Mapping[str, Any],
        *,
        due: float | None,
        interruption: Interruption,
        type_name: str = "",
    ) -> Brought:
        """`found` are the results of earlier steps; `due` is when the job's deadline is."""
        interruption.check()
        if step.downstream is None:
            return self._run(step, job, found, due=due, interruption=interruption)
        left_s = math.inf if due is None else max(0.0, due - self._clock.monotonic())
        asked = request(step, job, found, type_name=type_name)
        answer = self._call(step.downstream, asked, left_s=left_s, interruption=interruption)
        result = results.kept(answer.body, step=step.name, max_bytes=self._max_result_bytes)
        return Brought(result=result, status=answer.status)

    def _run(
        self,
        step: StepSpec,
        job: Claimed,
        found: Mapping[str, Any],
        *,
        due: float | None,
        interruption: Interruption,
    ) -> Brought:
        handler = self._found(step)
        now = self._clock.monotonic()
        context = StepContext(
            job_id=job.id,
            step=step.name,
            payload=job.payload,
            results=found,
            token=token(job, step),
            correlation_id=job.correlation_id,
            tenant=job.tenant,
            attempt=job.attempts + 1,
            interruption=interruption,
            clock=self._clock,
            job_due=due,
            step_due=None if step.timeout_s is None else now + step.timeout_s,
        )
        try:
            result = handler(context)
        except Exception:
            raise
        except BaseException as error:
            # SystemExit, or what asyncio and generators end by: it must not end the worker.
            kind = type(error).__name__
            raise RetryableError(f"{step.handler} let {kind} out ({error})") from error
        finally:
            close_old_connections()
        kept = results.kept(result, step=step.name, max_bytes=self._max_result_bytes)
        return Brought(result=kept)

    def _found(self, step: StepSpec) -> Callable[[StepContext], Any]:
        try:
            return self._handlers.find(step.handler)
        except HandlerError as error:
            raise Delayed(UNUSABLE_S, str(error)) from error


def token(job: Claimed, step: StepSpec) -> str:
    """The same in every attempt, so that whoever is called again can tell."""
    return f"{job.id}:{step.name}"


def request(
    step: StepSpec, job: Claimed, found: Mapping[str, Any], *, type_name: str = ""
) -> CallRequest:
    """Raises PermanentError where a template cannot be filled in."""
    scope = Scope(
        payload=job.payload,
        results=found,
        job={
            "id": str(job.id),
            "correlation_id": job.correlation_id,
            "tenant": job.tenant,
            "service": job.service,
            "attempt": job.attempts + 1,
        },
    )
    body = templates.body(step, scope)
    configured = templates.headers(step, scope)
    headers = {name: text for name, text in configured.items() if name.lower() not in OURS}
    content_type = next(
        (text for name, text in configured.items() if name.lower() == "content-type"),
        "application/json",
    )
    headers["Idempotency-Key"] = token(job, step)
    headers["X-Correlation-ID"] = job.correlation_id
    headers["X-Collector-Job"] = str(job.id)
    headers["X-Collector-Attempt"] = str(job.attempts + 1)
    if traceparent := tracing.traceparent_of(job):
        headers["traceparent"] = traceparent
    return CallRequest(
        method=step.method,
        path=templates.path(step, scope) or "/",
        headers=headers,
        body=body,
        content_type=content_type if body is not None else "",
        expected_status=step.expected_status,
        timeout_s=step.timeout_s,
        asker=f"step {step.name} of {type_name or f'type {job.type_id}'}",
    )
