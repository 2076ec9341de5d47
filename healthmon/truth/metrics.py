"""What the flips sink tells Prometheus.  Any thread; made at `ready()`."""

from __future__ import annotations

from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter


class Metrics:
    """The metrics themselves; one object per registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.stored = Counter(
            "flips_stored_total", "Changes of status stored.", ["to_status"], registry=registry
        )
        self.fenced = Counter(
            "flips_fenced_total",
            "Changes that a checker decided after it had lost its lease: not stored.",
            registry=registry,
        )
        self.dropped = Counter(
            "flips_dropped_total",
            "Changes that are stored nowhere, on purpose.",
            ["reason"],
            registry=registry,
        )


@cache
def metrics() -> Metrics:
    """This process's metrics in prometheus_client's own registry."""
    return Metrics()
