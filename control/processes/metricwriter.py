"""Writes this process's figures for the servers to show, every few seconds, on a thread of its own.

For processes that serve no HTTP; what the file is, and who reads it, is in
`control.processes.metricfiles`.  Started and stopped by the service that owns it; the thread is
named after its role, such as "checker-metrics".
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from django.db import connections
from prometheus_client.metrics_core import Metric

from control.processes.metricfiles import GREATEST, MetricFile

logger = logging.getLogger(__name__)

WRITE_EVERY_S = 2.0


class MetricWriter:
    """`before(turn)` is called before each writing, to bring figures up to date."""

    def __init__(
        self,
        *,
        folder: Path,
        role: str,
        collect: Callable[[], Iterable[Metric]],
        own: frozenset[str],
        greatest: frozenset[str] = GREATEST,
        every_s: float = WRITE_EVERY_S,
        before: Callable[[int], None] = lambda turn: None,
    ) -> None:
        self._file = MetricFile(
            folder=folder, role=role, collect=collect, own=own, greatest=greatest
        )
        self._role = role
        self._every_s = every_s
        self._before = before
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{role}-metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        """Write once more and end."""
        self._stopping.set()
        self._thread.join(deadline_s)

    def _run(self) -> None:
        turn, opened, ended, failing = 0, False, False, ""
        try:
            while not ended:
                self._before(turn)
                turn += 1
                ended = self._stopping.wait(self._every_s)
                try:
                    if not opened:
                        self._file.open()
                        opened = True
                    self._file.write()
                    failing = ""
                except OSError as error:
                    if failing != str(error):
                        failing = str(error)
                        logger.warning(
                            "this process's metrics cannot be written for the server to show",
                            extra={"role": self._role, "error": failing},
                        )
        finally:
            connections.close_all()
