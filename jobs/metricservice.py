"""Shows the figures of jobs at the server's door.

A runner of its own writes them to a file, which the server's /metrics adds to its own; see
`control.processes.metricwriter`.  How many jobs wait is told by servers alone, which ask the
database for it on the heart's thread: whatever runners told besides would be added to it.
"""

from __future__ import annotations

from django.conf import settings
from prometheus_client import REGISTRY

from control.processes import heart
from control.processes.metricfiles import GREATEST, directory
from control.processes.metricwriter import MetricWriter
from jobs import metrics
from jobs.metrics import OWN
from jobs.store.database import store

TASK = "job-depth"
DEPTH_EVERY_S = 5.0
GREATEST_OF_ALL = GREATEST | {"downstream_breaker_state"}


def read_depth() -> None:
    """Raises `django.db.Error`."""
    metrics.note_depth(store().counts())


class MetricService:
    """Started and stopped with the process."""

    name = "job-metrics"
    order = 15

    def __init__(self) -> None:
        self._writer: MetricWriter | None = None

    def start(self, role: str) -> None:
        if role == "server":
            heart.every(TASK, DEPTH_EVERY_S, read_depth)
        if role != "jobs" or self._writer is not None:
            return
        metrics.metrics()
        self._writer = MetricWriter(
            folder=directory(settings.COLLECTOR.server.data_dir),
            role="jobs",
            collect=REGISTRY.collect,
            own=OWN,
            greatest=GREATEST_OF_ALL,
        )
        self._writer.start()

    def stop(self, deadline_s: float) -> None:
        heart.heart().forget(TASK)
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.stop(deadline_s)

    def after_fork(self) -> None:
        """The parent's thread is not here."""
        self._writer = None


service = MetricService()
