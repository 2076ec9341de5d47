"""A runner: the parts that claim jobs, run them and write down what became of them, wired in order.

    waker --> claimer --> hands --> workers --> committer --> store
                 keeper: the lease, cancellations, rescue     scaler: how many workers

Workers are threads of the engine's own pool.  `start` and `stop` are called by one thread; the rest
is told in the parts' texts.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from jobs import metrics
from jobs.execution.executor import Executor
from jobs.execution.interruption import STOP, Interruption
from jobs.running.claimer import Claimer
from jobs.running.committer import Committer
from jobs.running.endings import Endings
from jobs.running.figures import Figures
from jobs.running.hands import Hands, Run
from jobs.running.keeper import Keeper
from jobs.running.scaler import Scaler
from jobs.running.settling import Settling
from jobs.running.waker import Waker
from jobs.store.protocol import Claimed, Ended, Store
from jobs.types.catalogue import Catalogue
from pipeline.delivery.workers import Worker, WorkerPool
from pipeline.runtime.clock import Clock

logger = logging.getLogger(__name__)

# What a stop keeps for writing down what was interrupted.
WRITE_S = 3.0


class Runner:
    """`states()` tells of the downstream services, for the figures; `close` lets go of them."""

    def __init__(
        self,
        *,
        store: Store,
        executor: Executor,
        catalogue: Callable[[], Catalogue],
        settling: Settling,
        clock: Clock,
        min_workers: int,
        max_workers: int,
        poll_s: float,
        lease_s: float,
        process: str = "",
        states: Callable[[], list[dict[str, Any]]] = list,
        close: Callable[[], None] = lambda: None,
        waker: Callable[[Callable[[], None]], Waker] | None = None,
    ) -> None:
        self._store = store
        self._executor = executor
        self._catalogue = catalogue
        self._settling = settling
        self._clock = clock
        self._states = states
        self._close = close
        self._min_workers, self._max_workers = min_workers, max_workers
        host, pid = socket.gethostname(), os.getpid()
        self._label = f"{host[:40]}:{pid}"
        self._hurried = False
        self.hands = Hands(clock=clock, fresh=lambda: self.keeper.is_fresh())
        self.figures = Figures()
        self.committer = Committer(store=store, clock=clock)
        self.pool = WorkerPool(name="jobs", work=self._work, ended=lambda worker: None, clock=clock)
        self.endings = Endings(
            hands=self.hands,
            pool=self.pool,
            committer=self.committer,
            settling=settling,
            figures=self.figures,
            name=self._name,
            clock=clock,
        )
        self.claimer = Claimer(
            store=store,
            runner=lambda: self.keeper.runner,
            label=self._label,
            room=lambda: self.hands.room(len(self.pool.staying)),
            take=self._take,
            holding=lambda: self.hands.ids() | self.committer.jobs(),
            audit_s=lease_s,
            types=self._claimable,
            poll_s=poll_s,
            clock=clock,
        )
        self.keeper = Keeper(
            store=store,
            clock=clock,
            lease_s=lease_s,
            host=host,
            pid=pid,
            process=process,
            figures=self.report,
            attempts=lambda: {one.id: one.max_attempts for one in catalogue().types.values()},
            on_lost=self.endings.lose,
            on_fresh=self._fresh,
            on_cancel=self.endings.cancel,
            on_rescued=self._rescued,
            busy=lambda: bool(self.hands.busy() or self.hands.waiting),
        )
        self.scaler = Scaler(
            pool=self.pool,
            hands=self.hands,
            more=lambda: self.claimer.more,
            least=min_workers,
            most=max_workers,
            clock=clock,
            changed=self.claimer.nudge,
            look=self._look,
        )
        self._waker = (waker or _waker)(self._woken)

    # --- life ------------------------------------------------------------------------------

    def start(self) -> None:
        self.hands.open()
        self.committer.start()
        self.keeper.start()
        with self.hands.lock:
            for _ in range(self._min_workers):
                self.pool.grow(limit=self._max_workers)
        self.claimer.start()
        self.scaler.start()
        self._waker.start()
        logger.info("runner started", extra={"runner": self.keeper.runner})

    def stop(self, *, finish_s: float, write_s: float = WRITE_S) -> bool:
        """Claim nothing more, let what runs end for `finish_s`, then give it back.

        True when every worker ended.  What was claimed and not begun goes back at once.
        """
        logger.info("runner is stopping", extra={"busy": len(self.hands.busy())})
        self._waker.stop(0)
        self.scaler.stop(1.0)
        self.claimer.stop(2.0)
        for run in self.hands.close():
            self.endings.give_back(run)
        due = self._clock.monotonic() + finish_s
        while not self._hurried and (left := due - self._clock.monotonic()) > 0:
            if self.hands.await_idle(min(left, 0.25)):
                break
        for run in self.hands.busy():
            self.endings.interrupt(run, STOP)
        idle = self.hands.await_idle(write_s)
        hanging = [] if idle else self.hands.busy()
        for run in hanging:
            logger.error(
                "a job does not end and is given back; it may still have an effect",
                extra={"job_id": str(run.job.id), "worker_id": self._name(run.worker)},
            )
        written = self.committer.stop(write_s)
        self.pool.join(0.5)
        self.keeper.stop(2.0)
        given_back = self._leave()
        self._close()
        logger.info(
            "runner stopped",
            extra={**self.figures.report(), "hanging": len(hanging), "given_back": given_back},
        )
        return idle and written

    def hurry(self) -> None:
        """Have a stop that is under way wait for nothing that runs."""
        self._hurried = True

    def _leave(self) -> int | None:
        try:
            return self._store.leave(self.keeper.runner)
        except Exception as error:
            logger.warning(
                "the jobs in hand could not be given back; others run them when the lease is over",
                extra={"error": str(error)},
            )
            return None

    # --- workers ---------------------------------------------------------------------------

    def _work(self, worker: Worker) -> None:
        while True:
            run = self.hands.take(worker)
            if run is None:
                return
            try:
                self._run(run, worker)
            except Exception:
                logger.exception("a job's run failed", extra=self._fields(run))
            finally:
                self.hands.ended(run)
                self.claimer.freed()

    def _run(self, run: Run, worker: Worker) -> None:
        job, spec = run.job, run.type
        name = self._name(worker)
        metrics.observe_started(spec.name, job.waited_s)
        try:
            outcome = self._executor.run(
                job,
                spec,
                worker=name,
                record=lambda progress, wait: self.committer.hand_in(progress, wait=wait),
                interruption=run.interruption,
                claimed_at=run.claimed_at,
            )
        except BaseException as error:  # whatever a handler lets out: the job must be settled
            logger.exception("a job could not be run", extra=self._fields(run))
            outcome = self._settling.of_error(job, spec, error, worker=name)
        run.settling = True
        took_s = self._clock.monotonic() - run.began_at
        if outcome is None or worker.disowned:
            self.figures.lose(spec.name)
            return
        if isinstance(outcome, Ended):
            outcome = replace(outcome, ran_s=took_s)
        kept = self._settling.settle(self.committer, job, spec, outcome)
        stopped = run.interruption.why == STOP
        self.figures.settle(spec.name, outcome, took_s, kept=kept, stopped=stopped)

    def _fields(self, run: Run) -> dict[str, str]:
        """What a log line outside of the executor's says of which job it is about."""
        return {
            "job_id": str(run.job.id),
            "correlation_id": run.job.correlation_id,
            "worker_id": self._name(run.worker),
        }

    def _name(self, worker: Worker | None) -> str:
        return self._label if worker is None else f"{self._label} {worker.name}"

    # --- the claimer -----------------------------------------------------------------------

    def _claimable(self) -> list[int]:
        if self.stuck:
            return []
        return [one.id for one in self._catalogue().types.values() if one.enabled]

    def _take(self, jobs: list[Claimed]) -> None:
        now = self._clock.monotonic()
        types = self._catalogue().types
        runs = []
        for job in jobs:
            spec = types.get(job.type_id)
            run = Run(
                job=job,
                # One that went away between the claim and now: it is queued and waits.
                type=spec or self._settling.gone(job.type_id),
                interruption=Interruption(clock=self._clock),
                claimed_at=now,
            )
            if spec is None:
                self.endings.give_back(run)
            else:
                runs.append(run)
        for run in self.hands.put(runs):
            self.endings.give_back(run)

    def _woken(self) -> None:
        self.claimer.nudge()
        if self.hands.busy():
            self.keeper.nudge()

    # --- the keeper ------------------------------------------------------------------------

    def _fresh(self, fresh: bool) -> None:
        if self.hands.held == (not fresh):
            return
        self.hands.hold(not fresh)
        if fresh:
            self.claimer.nudge()

    def _rescued(self, count: int) -> None:
        metrics.count_rescued(count)
        self.claimer.nudge()

    def _look(self) -> None:
        """The scaler's look, a few times a second."""
        self.endings.look()
        metrics.set_workers(len(self.pool))

    @property
    def stuck(self) -> bool:
        """Whether so many steps never ended that only a new process can help."""
        return self.endings.stuck

    # --- what others ask -------------------------------------------------------------------

    def report(self) -> Mapping[str, Any]:
        """This runner's figures, for its row, the process's and the admin."""
        states = self._states()
        metrics.note_downstreams(states)
        now = self._clock.monotonic()
        busy = self.hands.busy()
        return {
            **self.figures.report(),
            "runner": self.keeper.runner,
            "workers": len(self.pool.staying),
            "max_workers": self._max_workers,
            "hung": len(self.pool.hung),
            "stuck": self.stuck,
            "busy": len(busy),
            "waiting": self.hands.waiting,
            "claimed": self.claimer.claimed,
            "rescued": self.keeper.rescued,
            "runners": self.keeper.living,
            "database_error": self.keeper.failing or self.claimer.failing or self.committer.failing,
            "downstreams": states,
            "hands": [
                {
                    "job": str(run.job.id),
                    "type": run.type.name,
                    "worker": run.worker.name if run.worker else "",
                    "for_s": round(now - run.began_at, 1),
                }
                for run in busy[:50]
            ],
        }

    def unready(self) -> str | None:
        if self.stuck:
            return "so many steps hang that it takes no more jobs"
        if not self.keeper.is_fresh():
            return self.keeper.failing or "this runner's lease is not confirmed"
        return None


def _waker(wake: Callable[[], None]) -> Waker:
    return Waker(wake=wake)
