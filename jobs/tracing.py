"""Spans of jobs and the fields of their log lines; no spans at all while tracing is off.

One trace a job: it goes on from the span that submitted it, and where none did from ids that are
reckoned from the job's own, so that all its attempts, of any process, meet in one trace.  Each
attempt is a span, each step a child of it.  Spans travel in context variables: whoever runs a step
on another thread runs it in a copy of the context (`contextvars.copy_context`), which carries the
fields of log lines too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Protocol
from uuid import UUID

import structlog
from django.conf import settings
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

_OFF = trace.INVALID_SPAN
_MAX_TEXT = 500


class TracedJob(Protocol):
    """What of a `Claimed` is told."""

    @property
    def id(self) -> UUID: ...
    @property
    def claim(self) -> int: ...
    @property
    def attempts(self) -> int: ...
    @property
    def tenant(self) -> str: ...
    @property
    def correlation_id(self) -> str: ...
    @property
    def traceparent(self) -> str: ...


class JobTracing:
    """Makes spans with a tracer of `provider`, by default the one of the process."""

    def __init__(
        self, *, provider: trace.TracerProvider | None = None, sample_ratio: float = 1.0
    ) -> None:
        self._tracer = trace.get_tracer("collector.jobs", tracer_provider=provider)
        self._sample_ratio = sample_ratio

    def submitted(self, job_id: UUID, type_name: str, traceparent: str) -> str:
        """Record the submission; returns the traceparent to keep with the job."""
        parent = parsed(traceparent) or derived(job_id, self._sample_ratio)
        with self._tracer.start_as_current_span(
            f"submit {type_name}",
            context=_below(parent),
            kind=SpanKind.PRODUCER,
            attributes={"collector.job_id": str(job_id), "collector.job_type": type_name},
        ) as span:
            return written(span.get_span_context())

    @contextmanager
    def attempt(self, job: TracedJob, type_name: str, worker: str) -> Iterator[Span]:
        parent = parsed(job.traceparent) or derived(job.id, self._sample_ratio)
        with self._tracer.start_as_current_span(
            f"job {type_name}",
            context=_below(parent),
            kind=SpanKind.CONSUMER,
            attributes={
                "collector.job_id": str(job.id),
                "collector.job_type": type_name,
                "collector.attempt": job.attempts + 1,
                "collector.claim": job.claim,
                "collector.tenant": job.tenant,
                "collector.correlation_id": job.correlation_id,
                "collector.worker_id": worker,
            },
        ) as span:
            yield span

    @contextmanager
    def step(self, step_name: str) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            f"step {step_name}",
            kind=SpanKind.CLIENT,
            attributes={"collector.step": step_name},
        ) as span:
            yield span


# --- what others call ------------------------------------------------------------------------


def submitted_span(job_id: UUID, type_name: str, traceparent: str = "") -> str:
    """Record that a job was submitted; returns the traceparent to keep with it."""
    tracing = _current()
    return traceparent if tracing is None else tracing.submitted(job_id, type_name, traceparent)


def attempt_span(job: TracedJob, type_name: str, worker: str) -> AbstractContextManager[Span]:
    """The span of one attempt, current within the block; one that records nothing while off."""
    tracing = _current()
    return nullcontext(_OFF) if tracing is None else tracing.attempt(job, type_name, worker)


def step_span(step_name: str) -> AbstractContextManager[Span]:
    """The span of one call of one step, below the attempt's."""
    tracing = _current()
    return nullcontext(_OFF) if tracing is None else tracing.step(step_name)


def failed(span: Span, error: str) -> None:
    """Mark what a span tells of as failed, and why."""
    span.set_status(Status(StatusCode.ERROR, error[:_MAX_TEXT]))


def traceparent_of(job: TracedJob) -> str:
    """The `traceparent` that a downstream call carries; "" where there is none to go on from."""
    current = trace.get_current_span().get_span_context()
    return written(current) if current.is_valid else job.traceparent


def log_fields(job: TracedJob, worker: str) -> AbstractContextManager[None]:
    """Have each log line of the block, on this thread, say of which job and worker it is."""
    return structlog.contextvars.bound_contextvars(
        job_id=str(job.id), correlation_id=job.correlation_id, worker_id=worker
    )


# --- contexts --------------------------------------------------------------------------------


def parsed(traceparent: str) -> SpanContext | None:
    """The W3C header `00-<trace id>-<span id>-<flags>`; None where it is not one."""
    fields = traceparent.split("-")
    if len(fields) < 4 or [len(field) for field in fields[:4]] != [2, 32, 16, 2]:
        return None
    try:
        trace_id, span_id, flags = (int(field, 16) for field in fields[1:4])
    except ValueError:
        return None
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return context if context.is_valid else None


def written(context: SpanContext) -> str:
    """The W3C header of a span; "" of one that is none."""
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 0xFF:02x}"


def derived(job_id: UUID, sample_ratio: float) -> SpanContext:
    """The beginning of a trace for a job that came without: the same whoever reckons it."""
    digest = hashlib.sha256(job_id.bytes).digest()
    trace_id, span_id = int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:24], "big")
    share = int.from_bytes(digest[24:32], "big") / 2**64
    flags = TraceFlags.SAMPLED if share < sample_ratio else TraceFlags.DEFAULT
    return SpanContext(trace_id or 1, span_id or 1, is_remote=True, trace_flags=TraceFlags(flags))


def _below(parent: SpanContext) -> contexts.Context:
    return trace.set_span_in_context(trace.NonRecordingSpan(parent), contexts.Context())


def _current() -> JobTracing | None:
    tracing = settings.COLLECTOR.tracing
    return _made(tracing.sample_ratio) if tracing.otlp_endpoint else None


@cache
def _made(sample_ratio: float) -> JobTracing:
    return JobTracing(sample_ratio=sample_ratio)
