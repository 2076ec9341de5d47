"""What dead letters tell Prometheus and the dashboard.

Made at `ready()`.  The gauge is read from the tallies by the heart; `_lock` guards which sinks it
has.
"""

from __future__ import annotations

import threading
from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from sinks.deadletters.models import DeadLetterTally

INTERVAL_S = 15.0


class Metrics:
    """The metrics themselves; one object per registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.waiting = Gauge(
            "dead_letters_waiting",
            "Dead letters that wait for a decision.",
            ["sink"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.expired = Counter(
            "dead_letters_expired_total",
            "Dead letters that nobody decided about in time.",
            ["sink"],
            registry=registry,
        )
        self._lock = threading.Lock()
        self._named: set[str] = set()

    def refresh(self) -> None:
        """Set the gauge from the tallies; a sink that is gone or renamed reads 0."""
        waiting: dict[str, int] = {}
        for name, count in DeadLetterTally.objects.values_list("sink_name", "waiting"):
            waiting[name] = waiting.get(name, 0) + count
        with self._lock:
            for name in self._named - waiting.keys():
                self.waiting.labels(name).set(0)
            for name, count in waiting.items():
                self.waiting.labels(name).set(count)
            self._named |= waiting.keys()


@cache
def metrics() -> Metrics:
    """This process's metrics in prometheus_client's own registry."""
    return Metrics()
