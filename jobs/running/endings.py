"""How runs are ended from outside: a deadline, a cancellation, a lost lease, a stop; and what is
done when they do not end.

Called by the keeper, the scaler and whoever stops the runner, each on its own thread; the hands'
lock guards what is in whose hands, and this keeps nothing of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from uuid import UUID

from jobs.execution.interruption import CANCEL, DEADLINE, LOST
from jobs.running.committer import Committer
from jobs.running.figures import Figures
from jobs.running.hands import Hands, Run
from jobs.running.settling import Settling
from jobs.states import ASKED, CANCELLED
from jobs.store.protocol import Again, Ended
from pipeline.delivery.workers import Worker, WorkerPool
from pipeline.runtime.clock import Clock

logger = logging.getLogger(__name__)

# A run that was told to end and does not, for so long, hangs: its worker is replaced.
HUNG_S = 15.0
MAX_HUNG = 8
# What was claimed ahead and is not begun by then goes to whoever is free.
AHEAD_S = 0.5


class Endings:
    """`name` spells a worker as jobs tell of it."""

    def __init__(
        self,
        *,
        hands: Hands,
        pool: WorkerPool,
        committer: Committer,
        settling: Settling,
        figures: Figures,
        name: Callable[[Worker | None], str],
        clock: Clock,
    ) -> None:
        self._hands = hands
        self._pool = pool
        self._committer = committer
        self._settling = settling
        self._figures = figures
        self._name = name
        self._clock = clock

    @property
    def stuck(self) -> bool:
        """Whether so many steps never ended that only a new process can help."""
        return self._pool.stuck(MAX_HUNG)

    def interrupt(self, run: Run, why: str) -> None:
        """Tell a run to end; one that has ended, and only waits to be written, is let be."""
        if run.settling:
            return
        if run.told_at is None:
            run.told_at = self._clock.monotonic()
        run.interruption.interrupt(why)

    def lose(self) -> None:
        """What is held belongs to others."""
        self._hands.drop()
        for run in self._hands.busy():
            self.interrupt(run, LOST)

    def cancel(self, asked: Sequence[tuple[UUID, int]]) -> None:
        """These (id, claim) are not wanted any more."""
        for job_id, claim in asked:
            run = self._hands.find(job_id)
            if run is None or run.job.claim != claim:
                continue
            if self._hands.withdraw(run):
                ended = Ended(
                    id=job_id,
                    claim=claim,
                    state=CANCELLED,
                    reason=ASKED,
                    worker=self._name(None),
                    error="cancelled before it began",
                    spent=False,
                )
                self._begin(run, ended, 0.0)
            else:
                self.interrupt(run, CANCEL)

    def give_back(self, run: Run) -> None:
        """Let others have what was not begun."""
        back = Again(
            id=run.job.id,
            claim=run.job.claim,
            worker=self._name(None),
            spent=False,
            text="given back before it began",
        )
        self._figures.give_back(run.type.name)
        self._committer.hand_in(back, wait=False)

    def look(self) -> None:
        """A few times a second: deadlines, jobs that wait behind slow ones, workers that hang."""
        now = self._clock.monotonic()
        for run in self._hands.waited(AHEAD_S, now):
            self.give_back(run)
        for run in self._hands.busy():
            due = run.deadline_at()
            if due is not None and now >= due:
                self.interrupt(run, DEADLINE)
            if run.told_at is not None and not run.settling and now - run.told_at >= HUNG_S:
                self._abandon(run)

    def _abandon(self, run: Run) -> None:
        """It was told to end and does not: decide for it, and have another worker in its place."""
        worker = run.worker
        if worker is None or not self._pool.abandon(worker):
            return
        logger.error(
            "a job was told to end and does not; its worker is replaced",
            extra={
                "job_id": str(run.job.id),
                "correlation_id": run.job.correlation_id,
                "worker_id": self._name(worker),
                "why": run.interruption.why,
            },
        )
        self._figures.hung += 1
        outcome = self._settling.of_hung(
            run.job, run.type, run.interruption.why, worker=self._name(worker)
        )
        if outcome is not None:
            self._begin(run, outcome, self._clock.monotonic() - run.began_at)
        # Not sooner: what is neither in hand nor being written is given back.
        self._hands.ended(run)
        if self.stuck:
            logger.error(
                "so many threads hang that this runner takes no more jobs: it has to be restarted",
                extra={"hung": self._pool.hung},
            )

    def _begin(self, run: Run, outcome: Ended | Again, took_s: float) -> None:
        """Have it written without waiting."""
        self._settling.begin(
            self._committer,
            run.job,
            run.type,
            outcome,
            then=lambda kept: self._figures.settle(run.type.name, outcome, took_s, kept=kept),
        )
