"""Workers' lives as rows: opened when a worker is first seen, closed when it has ended.

The living ones come from the statistics every few seconds, on the heart's thread. A worker that
lived shorter than that is known from the engine's observer (`WorkerHistory`), which only takes
a note, on the worker's own thread; `_lock` guards the notes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from control.ports.stats import stats as pipeline_stats
from control.processes.identity import moment
from control.processes.models import WorkerRun
from pipeline.delivery.workers import WorkerRun as Life
from pipeline.observer import Observer

logger = logging.getLogger(__name__)

MAX_NOTES = 10_000
_Key = tuple[str, str, int]


class WorkerHistory(Observer):
    """Notes the workers that have ended until the heart writes them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: list[Life] = []

    def worker_ended(self, run: Life) -> None:
        with self._lock:
            if len(self._ended) < MAX_NOTES:
                self._ended.append(run)

    def take(self) -> list[Life]:
        with self._lock:
            ended, self._ended = self._ended, []
        return ended

    def put_back(self, lives: list[Life]) -> None:
        with self._lock:
            self._ended[:0] = lives[: MAX_NOTES - len(self._ended)]


class WorkerLives:
    """Writes the lives of this process's workers."""

    def __init__(
        self,
        *,
        process_id: UUID,
        now: Callable[[], datetime],
        history: WorkerHistory,
        stats: Callable[[], Mapping[str, Any]] = pipeline_stats,
    ) -> None:
        self._process_id = process_id
        self._now = now
        self._history = history
        self._stats = stats
        self._rows: dict[_Key, int] = {}
        self._written: dict[_Key, tuple[int, int, int]] = {}

    def write(self) -> None:
        """Bring the rows up to date. Raises, and forgets nothing, when the database is away."""
        ended = self._history.take()
        try:
            self._write(ended)
        except BaseException:
            self._history.put_back(ended)
            raise

    def _write(self, ended: list[Life]) -> None:
        living = {_key(worker): worker for worker in self._stats().get("workers", [])}
        for key, worker in living.items():
            self._put(key, _counts(worker), ended_at=None)
        for life in ended:
            key = (life.pipeline, life.worker, life.started_us)
            self._put(
                key, (life.records, life.batches, life.failures), ended_at=moment(life.ended_us)
            )
            self._forget(key)
        # Nobody told of their end: the engine they belonged to was replaced.
        vanished = [key for key in self._rows if key not in living]
        if vanished:
            WorkerRun.objects.filter(
                pk__in=[self._rows[key] for key in vanished], ended_at=None
            ).update(ended_at=self._now())
        for key in vanished:
            self._forget(key)

    def _put(self, key: _Key, counts: tuple[int, int, int], *, ended_at: datetime | None) -> None:
        if ended_at is None and self._written.get(key) == counts:
            return
        records, batches, failures = counts
        values = {
            "records": records,
            "batches": batches,
            "failures": failures,
            "ended_at": ended_at,
        }
        row = self._rows.get(key)
        if row is None or not WorkerRun.objects.filter(pk=row).update(**values):
            pipeline, worker, started_us = key
            made, _ = WorkerRun.objects.update_or_create(
                process_id=self._process_id,
                pipeline=pipeline[:200],
                worker=worker[:200],
                started_at=moment(started_us),
                defaults=values,
            )
            self._rows[key] = made.pk
        self._written[key] = counts

    def _forget(self, key: _Key) -> None:
        self._rows.pop(key, None)
        self._written.pop(key, None)


def _key(worker: Mapping[str, Any]) -> _Key:
    return str(worker["pipeline"]), str(worker["worker"]), round(worker["started_at"] * 1e6)


def _counts(worker: Mapping[str, Any]) -> tuple[int, int, int]:
    return int(worker["records"]), int(worker["batches"]), int(worker["failures"])


_history = WorkerHistory()


def worker_history() -> WorkerHistory:
    """The observer that an engine's owner adds: `engine.observe(worker_history())`."""
    return _history
