"""One pipeline's number of workers, changed by one at a time; see `pipeline.delivery.autoscaler`.

`scale` runs on the autoscaler's thread.  It looks and acts under the pipeline's lock, and tells of
it without.
"""

from __future__ import annotations

import logging

from pipeline.delivery.autoscaler import ScaleStats, Step, decide, reason
from pipeline.delivery.breaker import CLOSED
from pipeline.state import DRAINING, RUNNING, State

log = logging.getLogger(__name__)


class Staffing:
    """See the module's text."""

    def __init__(self, state: State) -> None:
        self._state = state

    def scale(self) -> float:
        """Look at the pipeline if that is due, and add or end a worker if the rule says so.

        Returns the seconds until the next look.
        """
        state = self._state
        now = state.clock.monotonic()
        with state.lock:
            due_s = state.scaler.due_s(now)
            if due_s > 0 or state.phase not in (RUNNING, DRAINING):
                return due_s or state.spec.settings.autoscale.interval_s
            stats = self._stats(now)
            settings = state.spec.settings
            step = decide(
                stats,
                settings.autoscale,
                least=settings.min_workers,
                most=settings.max_workers,
            )
            if step and self._take(step):
                state.scaler.changed(now)
            else:
                step = 0
            workers, next_s = len(state.pool.staying), state.scaler.due_s(now)
        state.pool.reap()
        if step:
            self._tell(step, workers, reason(step, stats, settings.autoscale))
        return next_s

    def _stats(self, now: float) -> ScaleStats:
        state = self._state
        workers = len(state.pool.staying)
        return ScaleStats(
            usage=state.admission.usage(),
            workers=workers,
            idle=state.scaler.idle,
            busy=state.scaler.busy(workers, now),
            waiting_batches=state.full_batches(),
            draining=state.phase == DRAINING,
            breaker_open=state.breaker.state != CLOSED,
            deliverable=state.deliverable()
            and not state.pool.stuck(state.spec.settings.max_hung_workers),
            since_change_s=state.scaler.since_change_s(now),
        )

    def _take(self, step: Step) -> bool:
        """Take a step; returns whether it was taken."""
        state = self._state
        if step == 1:
            if not state.pool.grow(limit=state.spec.settings.max_workers):
                return False
            state.figures.scaled_up += 1
            return True
        if state.pool.shrink(least=state.spec.settings.min_workers) is None:
            return False
        state.figures.scaled_down += 1
        state.work_to_do.notify_all()
        return True

    def _tell(self, step: Step, workers: int, why: str) -> None:
        name = self._state.spec.name
        log.info(
            "Scaler: scaling %s, workers = %d",
            "UP" if step == 1 else "Down",
            workers,
            extra={"sink": name, "why": why},
        )
        self._state.observer.scaled(name, workers, step, why)
