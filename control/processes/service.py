"""The service that gives a process its heart: identity, samples, workers, requests, keys, upkeep.

Starts first and stops last, so that its last beat tells how everything else ended. Started and
stopped by `lifecycle`; between those, everything here runs on the heart's thread.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import Any

from django.conf import settings
from django.db import connections

from control.auth import usage, watching
from control.partitions import upkeep
from control.partitions.on_demand import ALIAS as RECORDS
from control.ports.readiness import register_readiness
from control.ports.requests import register_request_handler
from control.ports.stats import stats
from control.processes import retention
from control.processes.heart import Heart, drop_stale_connections, heart
from control.processes.identity import Identity, plain, set_current_identity
from control.processes.requests import RequestDesk
from control.processes.samples import INTERVAL_S as SAMPLE_INTERVAL_S
from control.processes.samples import Sampler
from control.processes.stalls import StallWatch
from control.processes.workers import WorkerLives, worker_history
from pipeline.runtime.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

REQUEST_INTERVAL_S = 1.0
DEATH_INTERVAL_S = 5.0
ORDER = 0


class HeartService:
    """`_lock` guards what a start made and a stop takes down."""

    name = "heart"
    order = ORDER

    def __init__(self, *, pulse: Heart | None = None, clock: Clock | None = None) -> None:
        self._heart = pulse or heart()
        self._clock = clock or SystemClock()
        self._reset()

    def _reset(self) -> None:
        self._stalls = StallWatch(busy=self._heart.busy)
        self._lock = threading.Lock()
        self._identity: Identity | None = None
        self._desk: RequestDesk | None = None
        self._sampler: Sampler | None = None
        self._lives: WorkerLives | None = None

    def start(self, role: str) -> None:
        with self._lock:
            if self._identity is not None:
                return
            self._identity = identity = Identity(role=role, clock=self._clock)
            self._desk = RequestDesk(
                process_id=identity.id, now=identity.now, finished=lambda: self._heart.nudge("desk")
            )
            self._sampler = Sampler(
                process_id=identity.id, now=identity.now, monotonic=self._clock.monotonic
            )
            self._lives = WorkerLives(
                process_id=identity.id, now=identity.now, history=worker_history()
            )
        set_current_identity(identity)
        register_request_handler("report", _report)
        for alias in settings.DATABASES:
            register_readiness(f"database_{alias}", partial(self._heart.database_cause, alias))
        self._register_tasks(identity)
        self._heart.start()
        self._stalls.start()

    def stop(self, deadline_s: float) -> None:
        with self._lock:
            identity, desk = self._identity, self._desk
        if identity is None or desk is None:
            return
        ended = self._heart.stop(deadline_s / 2)
        if not ended and not self._waits_for_records():
            ended = self._heart.stop(deadline_s / 2)
        self._stalls.stop()
        if not ended and not self._waits_for_records():
            logger.error("the heart did not stop in time; its last figures are not written")
        else:
            self._last_beat(identity, desk)
        set_current_identity(None)
        with self._lock:
            self._identity = self._desk = self._sampler = self._lives = None

    def _waits_for_records(self) -> bool:
        """Whether the heart hangs at the records' database, which the last beat does not need."""
        busy = self._heart.busy()
        return busy is not None and busy[0] == RECORDS and not settings.RECORDS_SHARE_DEFAULT

    def after_fork(self) -> None:
        """The parent's identity is not the child's."""
        self._reset()
        self._heart.after_fork()
        set_current_identity(None)

    def _register_tasks(self, identity: Identity) -> None:
        every = self._heart.every
        retained = settings.COLLECTOR.retention
        every("heartbeat", SAMPLE_INTERVAL_S, self._beat)
        every("desk", REQUEST_INTERVAL_S, self._serve_desk)
        every("deaths", DEATH_INTERVAL_S, lambda: _ignore(identity.mark_dead()))
        watching.register(self._heart)
        every("key-usage", usage.INTERVAL_S, usage.write)
        every(
            "retention",
            retention.INTERVAL_S,
            lambda: _ignore(
                retention.forget_old(
                    identity.now(),
                    samples_hours=retained.samples_hours,
                    worker_runs_days=retained.worker_runs_days,
                )
            ),
        )
        every("partitions", upkeep.INTERVAL_S, upkeep.run, alias=RECORDS)
        every("old-rows", upkeep.ROWS_INTERVAL_S, upkeep.prune_rows, alias=RECORDS)
        every("records-ping", SAMPLE_INTERVAL_S, upkeep.ping, alias=RECORDS)

    def _beat(self) -> None:
        """The heartbeat first: the rows that follow refer to the process."""
        identity, sampler, lives = self._identity, self._sampler, self._lives
        if identity is not None and sampler is not None and lives is not None:
            identity.heartbeat()
            sampler.take()
            lives.write()

    def _serve_desk(self) -> None:
        identity, desk = self._identity, self._desk
        if identity is None or desk is None:
            return
        if desk.waiting:
            # Whoever asked reads the figures right after the answer.
            identity.heartbeat()
            desk.answer()
        desk.claim()

    def _last_beat(self, identity: Identity, desk: RequestDesk) -> None:
        drop_stale_connections()
        try:
            self._beat()
            desk.answer()
            desk.refuse_all("the process stopped before it had answered")
            usage.write()
            identity.ended("stopped")
        except Exception as error:
            logger.warning(
                "the last figures of this process were not written",
                extra={"error": type(error).__name__},
            )
        finally:
            connections.close_all()


def _report(args: dict[str, Any]) -> dict[str, Any]:
    """The built-in request: have the figures written now."""
    return {"ledger": plain(stats())["ledger"]}


def _ignore(result: object) -> None:
    """A task returns nothing."""
