"""The last ledgers of adopted logs, written to the rows of the processes that had begun them.

A process that was killed left its row with records in flight.  Whoever adopted its log knows how
they ended, and says so there once the log is delivered: the books of a dead process close, too.

The engine tells on its watchdog's thread; the heart writes, as soon as the process has said its own
farewell, or has been silent for a while: that it is gone is sure, as its log could be adopted.
What waits when this process stops is written then, on a thread of its own, as the log has gone and
nobody could say it later.  `_lock` guards what waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import connections
from django.db.models import Q
from django.utils import timezone

from control.models import Process
from control.processes import heart
from control.processes.identity import plain
from pipeline.observer import Observer

logger = logging.getLogger(__name__)

WRITE_INTERVAL_S = 5.0
# A process that ends by itself writes its last row within the stop's deadline.
SILENT = timedelta(seconds=12)
TASK = "ledgers of adopted logs"
# Each is a few rows; more than these many logs at once end only where hundreds of processes died.
MAX_WAITING = 1_000
# A process whose row nobody has closed by then has none, or has it on another control database.
MAX_ROUNDS = 720
# What a stop gives the database for what waits.
LAST_WRITE_S = 2.0


class FinishedLogs(Observer):
    """Remembers what is told, until it is written down."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[dict[str, Any], int]] = {}

    def log_finished(self, log_id: str, figures: Mapping[str, Any]) -> None:
        told: dict[str, Any] = plain({**figures, "at": timezone.now().timestamp()})
        with self._lock:
            while len(self._waiting) >= MAX_WAITING:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[log_id] = (told, 0)
        heart.heart().nudge(TASK)

    def register(self) -> None:
        """Have the heart write what waits."""
        heart.every(TASK, WRITE_INTERVAL_S, self.write)

    def write(self, *, last: bool = False) -> object:
        """Close the books of processes that have ended.  Raises what the database raises.

        The `last` time it waits for no farewell of theirs.
        """
        with self._lock:
            waiting = list(self._waiting.items())
        if not waiting:
            return heart.NOT_ASKED
        for log_id, (figures, rounds) in waiting:
            written = self._close(log_id, figures, last=last)
            with self._lock:
                if written or rounds >= MAX_ROUNDS:
                    self._waiting.pop(log_id, None)
                elif log_id in self._waiting:
                    self._waiting[log_id] = (figures, rounds + 1)
        return None

    def write_last(self, within_s: float = LAST_WRITE_S) -> None:
        """Write what waits before this process ends; a database that is slow is not waited for."""
        with self._lock:
            if not self._waiting:
                return
        writer = threading.Thread(target=self._write_last, name="ledgers-at-stop", daemon=True)
        writer.start()
        writer.join(within_s)
        with self._lock:
            left = list(self._waiting)
        if left:
            logger.warning(
                "the rows of ended processes still show records that were delivered meanwhile",
                extra={"log_ids": left[:10], "count": len(left)},
            )

    def _write_last(self) -> None:
        try:
            self.write(last=True)
        except Exception as error:
            logger.warning("the control database is away: %s", type(error).__name__)
        finally:
            connections.close_all()

    def _close(self, log_id: str, figures: dict[str, Any], *, last: bool) -> bool:
        processes = Process.objects.filter(log_id=log_id)
        if not last:
            silent = Q(last_seen_at__lt=timezone.now() - SILENT)
            processes = processes.filter(Q(stopped_at__isnull=False) | silent)
        process = processes.first()
        if process is None:
            return False
        stats = process.stats if isinstance(process.stats, dict) else {}
        delivered = {name: value for name, value in figures.items() if name != "ledger"}
        process.stats = {**stats, "delivered": delivered, "alarms": []}
        process.ledger = figures.get("ledger", [])
        process.save(update_fields=["stats", "ledger"])
        logger.info("the ledger of an ended process is closed", extra={"log_id": log_id})
        return True


_finished = FinishedLogs()


def finished_logs() -> FinishedLogs:
    """This process's."""
    return _finished
