"""Shows a checker's figures at the server's door.

A thread of the checker, "checker-metrics", writes them to a file every two seconds, which the
server's /metrics adds to its own; see `control.processes.metricwriter`.  The statuses of targets
are read from the control database, as checkers share them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.conf import settings
from django.db import Error as DatabaseProblem
from django.db.models import Count
from prometheus_client import REGISTRY

from control.processes.heart import drop_stale_connections
from control.processes.metricfiles import GREATEST, directory
from control.processes.metricwriter import WRITE_EVERY_S, MetricWriter
from healthmon.metrics import MAX_TARGETS, OWN, ProbeFigures, figures

logger = logging.getLogger(__name__)

STATUSES_EVERY_S = 10.0
GREATEST_OF_ALL = GREATEST | {"probe_up", "probe_up_omitted", "targets"}


def read_statuses(into: ProbeFigures) -> None:
    """Read from the control database what the targets are.  Raises `django.db.Error`."""
    from healthmon.targets.models import Target
    from healthmon.truth.machine import NEW

    counted = Target.objects.order_by().values_list("state__status").annotate(Count("pk"))
    statuses: dict[str, int] = {}
    for status, count in counted:
        statuses[status or NEW] = statuses.get(status or NEW, 0) + count
    first = Target.objects.order_by("pk").values_list("name", "state__status")[:MAX_TARGETS]
    some = [(name, status or NEW) for name, status in first]
    into.note_statuses(statuses, some, sum(statuses.values()))


class MetricService:
    """Writes a checker's figures for the server; started and stopped with the process."""

    name = "checker-metrics"
    order = 15

    def __init__(
        self,
        *,
        of: ProbeFigures = figures,
        every_s: float = WRITE_EVERY_S,
        statuses: Callable[[ProbeFigures], None] = read_statuses,
    ) -> None:
        self._of = of
        self._every_s = every_s
        self._statuses = statuses
        self._writer: MetricWriter | None = None

    def start(self, role: str) -> None:
        if role != "checker" or self._writer is not None:
            return
        if self._of not in REGISTRY._collector_to_names:
            REGISTRY.register(self._of)
        rounds = max(1, round(STATUSES_EVERY_S / self._every_s))
        self._writer = MetricWriter(
            folder=directory(settings.COLLECTOR.server.data_dir),
            role="checker",
            collect=REGISTRY.collect,
            own=OWN,
            greatest=GREATEST_OF_ALL,
            every_s=self._every_s,
            before=lambda turn: self._read_statuses() if turn % rounds == 0 else None,
        )
        self._writer.start()

    def stop(self, deadline_s: float) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.stop(deadline_s)

    def after_fork(self) -> None:
        self._writer = None

    def _read_statuses(self) -> None:
        try:
            drop_stale_connections()
            self._statuses(self._of)
        except DatabaseProblem:
            logger.debug("the targets' statuses cannot be read for the metrics")


_service = MetricService()


def register() -> None:
    """Have checkers write their figures."""
    from control.processes import lifecycle

    lifecycle.register(_service)
