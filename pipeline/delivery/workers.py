"""A resizable pool of named worker threads, each with its own stop and its own record of life.

`_lock` guards the list of workers and the numbering; threads are started under it, and leave the
list as the last thing they do.  What a worker holds and counts is written by that worker under
its pipeline's lock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.record import Batch
from pipeline.runtime.clock import Clock

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRun:
    """One worker's life so far; times are microseconds since 1970, `ended_us` 0 while it lives."""

    pipeline: str
    worker: str
    started_us: int
    ended_us: int
    records: int
    batches: int
    failures: int
    busy: bool


class Worker:
    """One thread of a pool; `batch` is what it holds at this moment, for which sink object."""

    __slots__ = (
        "batch",
        "batches",
        "failures",
        "idle_since",
        "name",
        "records",
        "sink",
        "started_us",
        "stopping",
        "thread",
    )

    def __init__(self, name: str, started_us: int, now: float) -> None:
        self.name = name
        self.started_us = started_us
        self.idle_since = now
        self.stopping = False
        self.batch: Batch | None = None
        self.sink = 0
        self.records = 0
        self.batches = 0
        self.failures = 0
        self.thread: threading.Thread

    def run_of(self, pipeline: str, ended_us: int = 0) -> WorkerRun:
        return WorkerRun(
            pipeline=pipeline,
            worker=self.name,
            started_us=self.started_us,
            ended_us=ended_us,
            records=self.records,
            batches=self.batches,
            failures=self.failures,
            busy=self.batch is not None,
        )


class WorkerPool:
    """Threads that run `work(worker)` until it returns, which it does once told to stop."""

    def __init__(
        self,
        *,
        name: str,
        work: Callable[[Worker], None],
        ended: Callable[[Worker], None],
        clock: Clock,
    ) -> None:
        self._name = name
        self._work = work
        self._ended = ended
        self._clock = clock
        self._lock = threading.Lock()
        self._one_ended = threading.Condition(self._lock)
        self._workers: list[Worker] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def workers(self) -> list[Worker]:
        """The living workers, oldest first."""
        with self._lock:
            return list(self._workers)

    def grow(self, *, limit: int) -> bool:
        """Start one more worker unless there are `limit`; returns whether one was started."""
        with self._lock:
            if len(self._workers) >= limit:
                return False
            self._number += 1
            worker = Worker(
                f"{self._name}-{self._number}", self._clock.time_us(), self._clock.monotonic()
            )
            worker.thread = threading.Thread(
                target=self._run, args=(worker,), name=worker.name, daemon=True
            )
            try:
                worker.thread.start()
            except RuntimeError as error:  # the system gives no more threads: go on with fewer
                log.error("worker %s could not start: %s", worker.name, error)
                return False
            self._workers.append(worker)
            return True

    def retire(self, worker: Worker, *, least: int) -> bool:
        """Tell a worker to end unless that leaves fewer than `least`; returns whether it was."""
        with self._lock:
            going = sum(w.stopping for w in self._workers)
            if worker.stopping or len(self._workers) - going <= least:
                return False
            worker.stopping = True
            return True

    def join(self, timeout_s: float | None) -> list[Worker]:
        """Wait for all workers to end; returns those that have not within `timeout_s`."""
        due = None if timeout_s is None else self._clock.monotonic() + timeout_s
        with self._lock:
            while self._workers:
                left = None if due is None else due - self._clock.monotonic()
                if left is not None and left <= 0:
                    break
                self._clock.wait(self._one_ended, left)
            return list(self._workers)

    def _run(self, worker: Worker) -> None:
        try:
            self._work(worker)
        finally:
            self._ended(worker)
            with self._lock:
                self._workers.remove(worker)
                self._one_ended.notify_all()
