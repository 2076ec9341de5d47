"""What the outbox tells Prometheus.  `_lock` guards the making of the metrics."""

from __future__ import annotations

import threading

from prometheus_client import REGISTRY, CollectorRegistry, Counter


class Metrics:
    """The metrics themselves; one object per registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.attempts = Counter(
            "outbox_attempts_total",
            "Attempts to send a message, by what came of them; failed ones are not tried again.",
            ["sender", "outcome"],
            registry=registry,
        )


_lock = threading.Lock()
_metrics: Metrics | None = None


def metrics() -> Metrics:
    """This process's metrics in prometheus_client's own registry."""
    global _metrics
    with _lock:
        if _metrics is None:
            _metrics = Metrics()
        return _metrics
