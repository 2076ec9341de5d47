"""Upkeep in a process: runners do all of it; servers count and forget while no runner is alive.

A server that runs jobs itself is a runner here.  `_lock` guards which rounds there are.
"""

from __future__ import annotations

import logging
import threading
import time

from django.conf import settings

from jobs.schedules.firing import EVERY_S, Firing
from jobs.states import DEADLINE
from jobs.store.database import store
from jobs.store.protocol import Store
from jobs.store.story import database_now
from jobs.upkeep.folding import RUNNER_EVERY_S, SERVER_EVERY_S, Folding, NobodyElse
from jobs.upkeep.retention import INTERVAL_S, Retention
from jobs.upkeep.rounds import Rounds, Task

logger = logging.getLogger(__name__)

ORDER = 50
OVERDUE_EVERY_S, OVERDUE_AGAIN_S = 30.0, 1.0
OVERDUE_JOBS = 1_000


def runs_jobs(role: str) -> bool:
    return role == "jobs" or (role == "server" and settings.COLLECTOR.jobs.in_server)


class Overdue:
    """Ends what waits beyond its deadline: its type is disabled, or nobody runs jobs."""

    def __init__(self, *, store: Store) -> None:
        self._store = store

    def run(self) -> float | None:
        ended = self._store.overdue(OVERDUE_JOBS)
        if ended:
            logger.warning(
                "jobs waited beyond their deadline and are dead",
                extra={"jobs": ended, "reason": DEADLINE},
            )
        return OVERDUE_AGAIN_S if ended == OVERDUE_JOBS else None


def runner_tasks(of: Store) -> tuple[Task, ...]:
    firing = Firing(store=of, now=database_now)
    folding = Folding(store=of)
    retention = Retention(store=of, now=database_now, monotonic=time.monotonic)
    return (
        Task(name="fold", interval_s=RUNNER_EVERY_S, run=folding.run),
        Task(name="schedules", interval_s=EVERY_S, run=firing.run),
        Task(name="retention", interval_s=INTERVAL_S, run=retention.run),
        Task(name="overdue", interval_s=OVERDUE_EVERY_S, run=Overdue(store=of).run),
    )


def server_tasks(of: Store) -> tuple[Task, ...]:
    folding = NobodyElse(store=of, run=Folding(store=of).run)
    retention = Retention(store=of, now=database_now, monotonic=time.monotonic)
    forgetting = NobodyElse(store=of, run=retention.run)
    ending = NobodyElse(store=of, run=Overdue(store=of).run)
    return (
        Task(name="fold", interval_s=SERVER_EVERY_S, run=folding.run),
        Task(name="retention", interval_s=INTERVAL_S, run=forgetting.run),
        Task(name="overdue", interval_s=OVERDUE_EVERY_S, run=ending.run),
    )


class UpkeepService:
    name = "jobs-upkeep"
    order = ORDER

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._rounds: Rounds | None = None

    def start(self, role: str) -> None:
        if role not in ("jobs", "server"):
            return
        with self._lock:
            if self._rounds is not None:
                return
            tasks = runner_tasks if runs_jobs(role) else server_tasks
            self._rounds = rounds = Rounds(tasks=tasks(store()))
        rounds.start()

    def stop(self, deadline_s: float) -> None:
        with self._lock:
            rounds, self._rounds = self._rounds, None
        if rounds is not None and not rounds.stop(deadline_s):
            logger.warning("upkeep of jobs is still under way; it ends with the process")

    def after_fork(self) -> None:
        """The parent's thread is not here."""
        self._reset()


service = UpkeepService()
