"""The outbox in a process: the deliverer, and retention.  `_lock` guards the deliverer."""

from __future__ import annotations

import logging
import threading
import uuid
from datetime import UTC, datetime

from control.outbox import retention
from control.outbox.deliverer import Deliverer
from control.processes import heart
from control.processes.identity import current_identity

logger = logging.getLogger(__name__)

ORDER = 40
RETENTION = "outbox-retention"
ROLES = frozenset({"server", "checker", "jobs"})


class OutboxService:
    name = "outbox"
    order = ORDER

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._deliverer: Deliverer | None = None

    def start(self, role: str) -> None:
        if role not in ROLES:
            return
        with self._lock:
            if self._deliverer is not None:
                return
            identity = current_identity()
            owner = str(identity.id if identity is not None else uuid.uuid4())
            self._deliverer = deliverer = Deliverer(owner=owner)
        heart.every(RETENTION, retention.INTERVAL_S, _forget)
        deliverer.start()

    def stop(self, deadline_s: float) -> None:
        with self._lock:
            deliverer, self._deliverer = self._deliverer, None
        if deliverer is None:
            return
        heart.heart().forget(RETENTION)
        if not deliverer.stop(deadline_s):
            logger.warning("a message is still being sent; it may be sent again")

    def after_fork(self) -> None:
        """The parent's threads are not here."""
        self._reset()


def _forget() -> None:
    retention.forget_old(datetime.now(UTC))


_service = OutboxService()


def current() -> OutboxService:
    """This process's service."""
    return _service
