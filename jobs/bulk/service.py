"""Bulk actions in a process: looked for by the heart of whatever serves the admin or runs jobs.

`_lock` guards what a start made.
"""

from __future__ import annotations

import logging
import threading
import uuid
from datetime import UTC, datetime

from control.processes import heart
from control.processes.identity import current_identity
from jobs.bulk import tasks
from jobs.bulk.tasks import Changer
from jobs.bulk.worker import BulkWorker

logger = logging.getLogger(__name__)

LOOK, RETENTION = "jobs-bulk-actions", "jobs-bulk-retention"
LOOK_INTERVAL_S, RETENTION_INTERVAL_S = 1.0, 3600.0
ROLES = frozenset({"server", "jobs", "test"})


class BulkService:
    name = "jobs-bulk"
    order = 48

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._worker: BulkWorker | None = None

    def start(self, role: str) -> None:
        if role not in ROLES:
            return
        with self._lock:
            if self._worker is not None:
                return
            identity = current_identity()
            process = str(identity.id if identity is not None else uuid.uuid4())
            self._worker = worker = BulkWorker(process=process, store=_store, now=_now)
        heart.every(LOOK, LOOK_INTERVAL_S, worker.look)
        heart.every(RETENTION, RETENTION_INTERVAL_S, _forget)

    def stop(self, deadline_s: float) -> None:
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is None:
            return
        for task in (LOOK, RETENTION):
            heart.heart().forget(task)
        if not worker.stop(deadline_s):
            logger.warning("a bulk action's batch has not ended; another process goes on with it")

    def after_fork(self) -> None:
        """The parent's thread is not here."""
        self._reset()


def _store() -> Changer:
    from jobs.store.database import store

    return store()


def _now() -> datetime:
    return datetime.now(UTC)


def _forget() -> None:
    tasks.forget(now=_now())


service = BulkService()
