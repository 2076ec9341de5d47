"""A resizable pool of named worker threads, each with its own stop and its own record of life.

`_lock` guards the lists of workers and the numbering; threads are started under it, and leave the
list as the last thing they do; whoever reaps or joins the pool joins them, without the lock.  What
a worker holds and counts is written under its pipeline's lock, by that worker or, when it hangs, by
the watchdog; its stop signal by whoever shrinks the pool, under that lock too.

A worker that does not come back from a write, its abort notwithstanding, is `disowned`: its batch
is taken from it, and it no longer counts as one of the pool's, so that another may take its place.
It ends when it comes back.  Nothing can end such a thread, so their number has a bound, at which
the pool is `stuck`: it holds its work, because the next thread would only hang too.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.delivery.breaker import Permit
from pipeline.record import Batch
from pipeline.runtime.clock import Clock

log = logging.getLogger(__name__)

# A thread that has left the pool has nothing left to do: it is joined in no time (seconds).
REAP_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRun:
    """One worker's life so far; times are microseconds since 1970, `ended_us` 0 while it lives.

    `records` and `batches` were settled by it, `failures` are attempts of its that failed.
    """

    pipeline: str
    worker: str
    started_us: int
    ended_us: int
    records: int
    batches: int
    failures: int
    busy: bool


class Worker:
    """One thread of a pool; `batch` is what it holds at this moment, for which sink object.

    `writing_since` is when its attempt began, None while it makes none; `late` says that the
    attempt took too long and was cut off (at `cut_at`).  `idle` while it waits for work; `stopping`
    tells it to end once the batch in its hand is in other hands.
    """

    __slots__ = (
        "batch",
        "batches",
        "cut_at",
        "disowned",
        "failures",
        "idle",
        "name",
        "permit",
        "records",
        "sink",
        "started_us",
        "stopping",
        "thread",
        "writing_since",
    )

    def __init__(self, name: str, started_us: int) -> None:
        self.name = name
        self.started_us = started_us
        self.idle = False
        self.stopping = False
        self.disowned = False
        self.batch: Batch | None = None
        self.permit: Permit | None = None
        self.writing_since: float | None = None
        self.cut_at: float | None = None
        self.sink = 0
        self.records = 0
        self.batches = 0
        self.failures = 0
        self.thread: threading.Thread

    def begin(self, batch: Batch, now: float, permit: Permit | None = None) -> None:
        """Hold a batch and begin an attempt."""
        self.batch, self.permit = batch, permit
        self.writing_since = now

    def sending(self, now: float) -> None:
        """The attempt's deadline counts from here: what came before was no fault of the sink."""
        self.writing_since = now

    def answered(self) -> None:
        """The sink has answered: what is done for the batch from here on has no deadline.

        Like `sending`, a thing that its worker may do without the pipeline's lock.
        """
        self.writing_since = None

    def end(self) -> None:
        """The attempt is over and its batch in other hands."""
        self.batch = self.permit = None
        self.writing_since = self.cut_at = None

    @property
    def late(self) -> bool:
        return self.cut_at is not None

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
        self._hung: list[Worker] = []
        self._gone: list[Worker] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def workers(self) -> list[Worker]:
        """The living workers, oldest first."""
        with self._lock:
            return list(self._workers)

    @property
    def staying(self) -> list[Worker]:
        """The living workers that were not told to end."""
        with self._lock:
            return [worker for worker in self._workers if not worker.stopping]

    @property
    def hung(self) -> list[str]:
        """The names of the threads that hang in a sink and were given up."""
        with self._lock:
            return [worker.name for worker in self._hung]

    def stuck(self, max_hung: int) -> bool:
        """Whether so many threads hang that no attempt may be begun until one comes back."""
        return len(self._hung) >= max_hung

    def overdue(self, now: float, timeout_s: float) -> list[Worker]:
        """Cut off the attempts that take longer than `timeout_s`; each is returned once.

        Like all that follows here, called under the pipeline's lock.
        """
        late = []
        for worker in self.workers:
            since = worker.writing_since
            if since is not None and not worker.late and now - since >= timeout_s:
                worker.cut_at = now
                late.append(worker)
        return late

    def unresponsive(self, now: float, grace_s: float) -> list[Worker]:
        """Those that have not come back `grace_s` after they were cut off."""
        return [
            worker
            for worker in self.workers
            if worker.writing_since is not None
            and worker.cut_at is not None
            and now - worker.cut_at >= grace_s
        ]

    def disown(self, worker: Worker) -> Batch | None:
        """Take its batch from a worker that hangs, for good, and count it out of the pool."""
        batch = worker.batch
        if batch is None or not self.abandon(worker):
            return None
        worker.end()
        return batch

    def abandon(self, worker: Worker) -> bool:
        """Count a worker that hangs out of the pool; False when it is not in it any more."""
        with self._lock:
            if worker not in self._workers:
                return False
            self._workers.remove(worker)
            self._hung.append(worker)
        worker.stopping = worker.disowned = True
        return True

    def grow(self, *, limit: int) -> bool:
        """Start one more worker unless there are `limit`; returns whether one was started."""
        with self._lock:
            if len(self._workers) >= limit:
                return False
            self._number += 1
            worker = Worker(f"{self._name}-{self._number}", self._clock.time_us())
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

    def shrink(self, *, least: int) -> Worker | None:
        """Tell one worker to end unless that leaves fewer than `least`; returns that worker.

        An idle one if there is any, so that it ends at once, and rather a young one than an old.
        Whoever calls this, under the pipeline's lock, wakes those who wait for work.
        """
        with self._lock:
            staying = [worker for worker in self._workers if not worker.stopping]
            if len(staying) <= least:
                return None
            # Not one that was cut off: it hangs, and ends of itself or not at all.
            chosen = max(reversed(staying), key=lambda worker: (worker.idle, not worker.late))
            chosen.stopping = True
            return chosen

    def reap(self) -> None:
        """Join the threads of those that have ended."""
        with self._lock:
            gone, self._gone = self._gone, []
        for worker in gone:
            if worker.thread is not threading.current_thread():
                worker.thread.join(REAP_S)

    def join(self, timeout_s: float | None) -> list[Worker]:
        """Wait for all workers to end; returns those that have not within `timeout_s`.

        Those that were given up are not waited for, but are among those returned.
        """
        due = None if timeout_s is None else self._clock.monotonic() + timeout_s
        with self._lock:
            while self._workers:
                left = None if due is None else due - self._clock.monotonic()
                if left is not None and left <= 0:
                    break
                self._clock.wait(self._one_ended, left)
            remaining = [*self._workers, *self._hung]
        self.reap()
        return remaining

    def _run(self, worker: Worker) -> None:
        try:
            self._work(worker)
        finally:
            self._ended(worker)
            with self._lock:
                (self._hung if worker.disowned else self._workers).remove(worker)
                self._gone.append(worker)
                self._one_ended.notify_all()
