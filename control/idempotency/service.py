"""The service behind `Idempotency-Key`: the desk's life, upkeep, and claims of adopted logs.

Started before the sinks and stopped after them: a request that a drain lets finish still gets its
claim recorded.  `_lock` guards the desk's coming and going.
"""

from __future__ import annotations

import logging
import socket
import threading
from datetime import timedelta

from django.conf import settings
from django.db import connections

from control.idempotency import upkeep
from control.idempotency.claims import resolve
from control.idempotency.desk import Desk
from control.idempotency.jobs import Unavailable
from control.idempotency.store import Store
from control.ports.adoption import register_adoption
from control.ports.stats import stats
from control.processes import heart
from control.processes.identity import moment
from pipeline.runtime.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

ORDER = 20
ROLES_WITHOUT_REQUESTS = frozenset({"command", "jobs"})
EXPIRE, SWEEP, CUT = "idempotency-expiry", "idempotency-sweep", "idempotency-cut"
CUT_INTERVAL_S = 1.0


class IdempotencyService:
    name = "idempotency"
    order = ORDER

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._desk: Desk | None = None

    @property
    def desk(self) -> Desk:
        """Raises Unavailable where no service runs."""
        desk = self._desk
        if desk is None:
            raise Unavailable
        return desk

    def start(self, role: str) -> None:
        if role in ROLES_WITHOUT_REQUESTS:
            return
        server, ingest = settings.COLLECTOR.server, settings.COLLECTOR.ingest
        keep_for = timedelta(hours=settings.COLLECTOR.retention.idempotency_hours)
        with self._lock:
            if self._desk is not None:
                return
            self._desk = desk = Desk(
                store=Store(keep_for=keep_for),
                wait_s=ingest.idempotency_wait_s,
                # A database that hangs must leave threads to requests without a key.
                limit=max(1, (server.threads - server.reserved_threads) * 3 // 4),
                clock=self._clock,
            )
        desk.start()
        heart.every(CUT, CUT_INTERVAL_S, desk.cut_overdue, database=False)
        heart.every(EXPIRE, upkeep.EXPIRY_INTERVAL_S, self._expire)
        heart.every(SWEEP, upkeep.SWEEP_INTERVAL_S, self._sweep)

    def stop(self, deadline_s: float) -> None:
        with self._lock:
            desk, self._desk = self._desk, None
        if desk is None:
            return
        for task in (CUT, EXPIRE, SWEEP):
            heart.heart().forget(task)
        if not desk.stop(deadline_s):
            logger.warning(
                "some idempotency keys could not be recorded; whoever adopts this process's log "
                "will settle them"
            )

    def after_fork(self) -> None:
        """The parent's desk has no thread here, and its connection is not ours."""
        self._reset()

    def register_ports(self) -> None:
        register_adoption(settle_adopted)

    def _expire(self) -> None:
        upkeep.forget_expired(moment(self._clock.time_us()))

    def _sweep(self) -> None:
        desk = self._desk
        if desk is not None:
            upkeep.sweep(
                moment(self._clock.time_us()),
                own_log_id=str(stats().get("log_id", "")),
                active=desk.active,
                wal_directory=settings.COLLECTOR.wal_directory,
                host=socket.gethostname(),
            )


def settle_adopted(log_id: str, keys: frozenset[str]) -> None:
    """The adoption hook, on the adopter's thread.

    Raises while the control database is away: to be told of again.
    """
    heart.drop_stale_connections()
    try:
        resolved = resolve(log_id, keys)
    finally:
        # The next adoption may be days away, and the thread end with a connection still open.
        for connection in connections.all(initialized_only=True):
            if not connection.in_atomic_block:
                connection.close()
    if resolved.any:
        logger.info(
            "claims of a dead process were settled by its log",
            extra={
                "log_id": log_id,
                "done": resolved.done,
                "partial": resolved.partial,
                "forgotten": resolved.forgotten,
            },
        )


_service = IdempotencyService()


def current() -> IdempotencyService:
    """This process's service."""
    return _service
