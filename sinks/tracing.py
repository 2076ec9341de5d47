"""Spans at the batch boundary and at the sink's write; nothing at all while tracing is off.

The site sets the tracer provider up when an OTLP endpoint is configured.  A batch's span begins
when the batch closes and ends when its records have ended; each attempt is a child of it and the
current span while the sink writes.  The requests whose records it carries are linked.

`_lock` guards `_open`, the spans of batches that have not ended.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from django.conf import settings
from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from pipeline.observer import Observer
from pipeline.record import Batch

_MAX_OPEN = 4_096
_MAX_LINKS = 32


def tracing_observer() -> Observer | None:
    """The observer, or None where tracing is off."""
    return BatchTracing() if settings.COLLECTOR.tracing.otlp_endpoint else None


class BatchTracing(Observer):
    """Makes spans with a tracer of `provider`, by default the one of the process."""

    def __init__(self, *, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("collector.sinks", tracer_provider=provider)
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Span] = OrderedDict()

    def batch_closed(self, batch: Batch) -> None:
        self._span_of(batch)

    @contextmanager
    def _writing(self, batch: Batch, worker: str) -> Iterator[Span]:
        parent = trace.set_span_in_context(self._span_of(batch))
        with self._tracer.start_as_current_span(
            "sink.write",
            context=parent,
            kind=SpanKind.PRODUCER,
            attributes={
                "collector.sink": batch.sink,
                "collector.batch_id": batch.batch_id,
                "collector.worker_id": worker,
                "collector.records": batch.count,
                "collector.attempt": batch.attempt,
            },
        ) as span:
            yield span

    def writing(self, batch: Batch, worker: str) -> AbstractContextManager[object]:
        return self._writing(batch, worker)

    def batch_settled(self, batch: Batch, stored: int, already_stored: int, age_s: float) -> None:
        with self._lock:
            span = self._open.pop(batch.batch_id, None)
        if span is None:
            return
        span.set_attribute("collector.stored", stored)
        span.set_attribute("collector.already_stored", already_stored)
        if stored + already_stored < batch.count:
            span.set_status(Status(StatusCode.ERROR, "some records were not stored"))
        span.end()

    def _span_of(self, batch: Batch) -> Span:
        with self._lock:
            span = self._open.get(batch.batch_id)
        if span is not None:
            return span
        span = self._tracer.start_span(
            "batch",
            context=trace.set_span_in_context(trace.INVALID_SPAN),
            links=_links(batch),
            attributes={
                "collector.sink": batch.sink,
                "collector.batch_id": batch.batch_id,
                "collector.records": batch.count,
                "collector.bytes": batch.nbytes,
                "collector.reason": batch.reason,
            },
        )
        with self._lock:
            self._open[batch.batch_id] = span
            # A batch that was split ends as its halves; its own span ends when room is needed.
            _, forgotten = (
                self._open.popitem(last=False) if len(self._open) > _MAX_OPEN else (0, None)
            )
        if forgotten is not None:
            forgotten.end()
        return span


def _links(batch: Batch) -> list[Link]:
    parents = dict.fromkeys(part.traceparent for part in batch.parts if part.traceparent)
    contexts = (_context(text) for text in list(parents)[:_MAX_LINKS])
    return [Link(context) for context in contexts if context is not None]


def _context(traceparent: str) -> SpanContext | None:
    """The W3C header `00-<trace id>-<span id>-<flags>`; None where it is not one."""
    fields = traceparent.split("-")
    try:
        trace_id, span_id, flags = (int(field, 16) for field in fields[1:4])
    except ValueError:
        return None
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return context if context.is_valid else None
