"""What the outbox tells Prometheus.  Any thread; made at `ready()`."""

from __future__ import annotations

from functools import cache

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


@cache
def metrics() -> Metrics:
    """This process's metrics in prometheus_client's own registry."""
    return Metrics()
