"""What a runner holds: jobs claimed and not begun, and those in workers' hands.

`lock` guards everything here; `work` tells workers of jobs, `rest` whoever waits for their end.
Used by the workers, the claimer, the keeper and whoever stops the runner; nothing is asked of a
database here.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from jobs.execution.interruption import Interruption
from jobs.store.protocol import Claimed
from jobs.types.spec import TypeSpec
from pipeline.delivery.workers import Worker
from pipeline.runtime.clock import Clock

# A job that takes less than this is claimed ahead, so that a worker need not wait for the next.
QUICK_S = 0.05
AHEAD = 4  # as many for each worker, at most
SMOOTHING = 0.1


@dataclass(slots=True, kw_only=True, eq=False)
class Run:
    """One attempt of one job in this process.  Times are monotonic."""

    job: Claimed
    type: TypeSpec
    interruption: Interruption
    claimed_at: float
    worker: Worker | None = None
    began_at: float = 0.0
    told_at: float | None = field(default=None)  # when it was interrupted
    settling: bool = False  # it has ended, and what became of it is being written

    def deadline_at(self) -> float | None:
        left = self.job.deadline_in_s
        return None if left is None else self.claimed_at + left


class Hands:
    """`fresh` says whether the lease is known to be ours: whoever was frozen asks it first."""

    def __init__(self, *, clock: Clock, fresh: Callable[[], bool] = lambda: True) -> None:
        self._clock = clock
        self._fresh = fresh
        self.lock = threading.RLock()
        self.work = threading.Condition(self.lock)
        self.rest = threading.Condition(self.lock)
        self._waiting: deque[Run] = deque()
        self._busy: dict[UUID, Run] = {}
        self.idle = 0
        self.closed = False  # nothing is begun any more
        self.held = False  # nothing is begun until the lease is known to be ours
        self._took_s = QUICK_S * 2

    # --- for the claimer -------------------------------------------------------------------

    def room(self, workers: int) -> int:
        """How many more jobs to claim."""
        with self.lock:
            if self.closed or self.held:
                return 0
            ahead = min(AHEAD, int(QUICK_S / self._took_s)) if self._took_s > 0 else AHEAD
            return max(0, workers * (1 + ahead) - len(self._waiting) - len(self._busy))

    def put(self, runs: list[Run]) -> list[Run]:
        """Have these begun; returns those that may not be any more."""
        with self.lock:
            if self.closed:
                return runs
            self._waiting.extend(runs)
            self.work.notify(len(runs))
            return []

    # --- for workers -----------------------------------------------------------------------

    def take(self, worker: Worker) -> Run | None:
        """The next job, waited for; None when this worker is to end."""
        with self.lock:
            while True:
                if worker.stopping or self.closed:
                    return None
                if self._waiting and not self.held and self._fresh():
                    run = self._waiting.popleft()
                    run.worker, run.began_at = worker, self._clock.monotonic()
                    self._busy[run.job.id] = run
                    return run
                self.idle += 1
                worker.idle = True
                try:
                    self._clock.wait(self.work, None)
                finally:
                    self.idle -= 1
                    worker.idle = False

    def ended(self, run: Run) -> None:
        """The worker is through with it."""
        with self.lock:
            if self._busy.get(run.job.id) is run:
                del self._busy[run.job.id]
            took_s = self._clock.monotonic() - run.began_at
            self._took_s += SMOOTHING * (took_s - self._took_s)
            if not self._busy:
                self.rest.notify_all()

    # --- for the keeper and the stop -------------------------------------------------------

    def hold(self, held: bool) -> None:
        """Begin nothing, until this is called with False."""
        with self.lock:
            self.held = held
            self.work.notify_all()

    def close(self) -> list[Run]:
        """Begin nothing more; returns what was claimed and not begun."""
        with self.lock:
            self.closed = True
            return self.drop()

    def drop(self) -> list[Run]:
        with self.lock:
            waiting, self._waiting = list(self._waiting), deque()
            self.work.notify_all()
            return waiting

    def open(self) -> None:
        with self.lock:
            self.closed = False

    def waited(self, seconds: float, now: float) -> list[Run]:
        """Take out of the line what waited in it for so long: jobs are slower than they were."""
        with self.lock:
            late = [run for run in self._waiting if now - run.claimed_at >= seconds]
            if late and self._busy:
                self._waiting = deque(run for run in self._waiting if run not in late)
                self._took_s = max(self._took_s, QUICK_S * 2)
                return late
            return []

    def busy(self) -> list[Run]:
        with self.lock:
            return list(self._busy.values())

    def find(self, job_id: UUID) -> Run | None:
        with self.lock:
            found = self._busy.get(job_id)
            return found or next((one for one in self._waiting if one.job.id == job_id), None)

    def ids(self) -> set[UUID]:
        """The jobs in hand, begun or not."""
        with self.lock:
            return {*self._busy, *(run.job.id for run in self._waiting)}

    def withdraw(self, run: Run) -> bool:
        """Take a job that was not begun out of the line; False when it is not there."""
        with self.lock:
            try:
                self._waiting.remove(run)
            except ValueError:
                return False
            return True

    def await_idle(self, timeout_s: float) -> bool:
        """Wait until no worker has a job in hand; False when that takes longer."""
        due = self._clock.monotonic() + timeout_s
        with self.lock:
            while self._busy:
                left = due - self._clock.monotonic()
                if left <= 0:
                    return False
                self._clock.wait(self.rest, left)
            return True

    @property
    def waiting(self) -> int:
        return len(self._waiting)
