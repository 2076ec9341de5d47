"""The watchdog: finds attempts that take too long, cuts them off, gives up threads that hang.

`AttemptWatch` decides for one pipeline, under that pipeline's lock; `Watchdog` is the engine's one
thread that makes each pipeline look, once a second.  What happens to an attempt:

    after attempt_timeout_s   its sink object is abandoned: later writes get a fresh one, the old
                              one is aborted, so that the write fails and its worker comes back
    GRACE_S after that        its worker is given up: the batch goes to another worker, and the
                              thread ends when it comes back, finding that nothing is its own
    max_hung_workers of them  the pipeline is stuck: it begins no attempt and its log holds all,
                              until one of the threads comes back or the process is started anew

A batch that was taken from a hung worker may be stored by it yet.  A sink with proofs stores it
once all the same; elsewhere the record's id tells.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from pipeline.delivery.breaker import Permit
from pipeline.delivery.slot import SinkSlot
from pipeline.delivery.workers import WorkerPool
from pipeline.record import Batch
from pipeline.runtime.clock import Clock
from pipeline.runtime.rounds import Rounds

log = logging.getLogger(__name__)

# What a worker has to come back in, once the sink under it was aborted.
GRACE_S = 5.0
LOOK_EVERY_S = 1.0


class Orphan(NamedTuple):
    """A batch that was taken from a worker that hangs; the permit and the sink of that attempt."""

    worker: str
    batch: Batch
    permit: Permit | None
    sink: int


class AttemptWatch:
    """The deadline of one pipeline's attempts; guarded by the pipeline's lock."""

    def __init__(self, *, pool: WorkerPool, slot: SinkSlot) -> None:
        self._pool = pool
        self._slot = slot

    def look(self, now: float, *, timeout_s: float) -> list[Orphan]:
        """Cut off what is overdue; returns the batches that were taken from workers that hang.

        The caller fails their permits, lets the batches wait for their next attempt, and grows
        the pool to its least again unless it is stuck.
        """
        for worker in self._pool.overdue(now, timeout_s):
            log.warning(
                "worker %s: its write has not returned for %g s; the sink under it is aborted",
                worker.name,
                timeout_s,
            )
            self._slot.abandon(worker.name)
        orphans = []
        for worker in self._pool.unresponsive(now, GRACE_S):
            permit, batch = worker.permit, self._pool.disown(worker)
            if batch is None:
                continue
            log.error(
                "worker %s hangs: its write did not end within %g s of the abort; batch %s goes "
                "to another worker (threads that hang: %d)",
                worker.name,
                GRACE_S,
                batch.batch_id,
                len(self._pool.hung),
            )
            orphans.append(Orphan(worker.name, batch, permit, worker.sink))
        return orphans


class Watchdog(Rounds):
    """A thread that calls `look` every `every_s`, whatever `look` raises."""

    def __init__(
        self, *, look: Callable[[], None], clock: Clock, every_s: float = LOOK_EVERY_S
    ) -> None:
        super().__init__(name="watchdog", round=self._look_once, clock=clock, first_s=every_s)
        self._look = look
        self._every_s = every_s

    def _look_once(self) -> float:
        try:
            self._look()
        except Exception:
            log.exception("the watchdog could not look at a pipeline; it goes on")
        return self._every_s
