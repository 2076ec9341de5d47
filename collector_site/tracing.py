"""OpenTelemetry: spans sent to an OTLP endpoint, when one is configured.

Off by default, and then nothing of the SDK is imported. A service like the others: started in the
process that works (after the server's fork, because the exporter has a thread), stopped last, so
that the spans of the final batches leave too. Started and stopped under the services' own lock.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from control.config.settings import TracingSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

logger = logging.getLogger(__name__)


class TracingService:
    name = "tracing"
    order = -100  # before every service that makes spans, and after them at the stop

    def __init__(self, *, settings: TracingSettings) -> None:
        self._settings = settings
        self._provider: TracerProvider | None = None

    def start(self, role: str) -> None:
        # A process has one provider for good: the API refuses to replace it.
        if self._settings.otlp_endpoint and self._provider is None:
            self._provider = self._make(role)

    def stop(self, deadline_s: float) -> None:
        if self._provider is not None and not self._provider.force_flush(int(deadline_s * 1000)):
            logger.warning("some spans could not be sent before the deadline")

    def after_fork(self) -> None:
        self._provider = None

    def _make(self, role: str) -> TracerProvider:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

        resource = Resource.create(
            {
                "service.name": "collector",
                "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
                "collector.role": role,
            }
        )
        sampler = ParentBased(TraceIdRatioBased(self._settings.sample_ratio))
        provider = TracerProvider(resource=resource, sampler=sampler)
        exporter = OTLPSpanExporter(endpoint=traces_url(self._settings.otlp_endpoint))
        provider.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        return provider


def traces_url(endpoint: str) -> str:
    """The endpoint itself, or its traces path where only a host was given."""
    parts = urlsplit(endpoint)
    if parts.path in ("", "/"):
        parts = parts._replace(path="/v1/traces")
    return urlunsplit(parts)
