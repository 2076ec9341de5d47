"""The workers' side of a pipeline: what each does next, one attempt, and waiting for work.

Runs on worker threads, and `look` on the watchdog's.
"""

from __future__ import annotations

import logging

from pipeline.delivery.deliver import deliver
from pipeline.delivery.verdict import Verdicts
from pipeline.delivery.watchdog import AttemptWatch
from pipeline.delivery.workers import Worker
from pipeline.drops import Drops
from pipeline.reader import Reader
from pipeline.record import Batch
from pipeline.source import Chore
from pipeline.state import DRAINING, RUNNING, STOPPED, State

log = logging.getLogger(__name__)

# A batch whose delivery broke inside the engine is tried again after so long.
RECOVER_S = 1.0


class Consumer:
    """See the module's text."""

    def __init__(self, state: State, *, reader: Reader, drops: Drops) -> None:
        self._state = state
        self._reader = reader
        self._verdicts = Verdicts(state, drops, recover=self._recover)

    def work(self, worker: Worker) -> None:
        while (found := self._take(worker)) is not None:
            if isinstance(found, Chore):
                self._reader.run(found)
                continue
            try:
                self._attempt(worker, found)
            except Exception:
                log.exception(
                    "sink %s: batch %s broke its worker", self._state.spec.name, found.batch_id
                )
                self._recover(worker, found)
            if worker.disowned:
                return

    def _attempt(self, worker: Worker, batch: Batch) -> None:
        """One attempt, from the manifest on disk to what follows from the sink's answer."""
        state = self._state
        outcome = batch.outcome
        if outcome is None:
            if not self._commit(worker, batch):
                return
            worker.sending(state.clock.monotonic())
            outcome = deliver(
                batch,
                slot=state.slot,
                worker=worker,
                policy=state.spec.settings.retry,
                clock=state.clock,
                observer=state.observer,
                age_s=lambda now: self._age_s(batch, now),
            )
        self._verdicts.finish(worker, batch, outcome)
        if outcome.error is None and self._state.finished:
            self._forget_finished()

    def _forget_finished(self) -> None:
        """The sink answers: a good moment to tell it which logs will never be replayed."""
        with self._state.lock:
            finished, self._state.finished = self._state.finished, []
        for log_id in finished:
            self._state.slot.forget(log_id)

    def _commit(self, worker: Worker, batch: Batch) -> bool:
        """Have the manifest on disk before anything is sent; without it the batch waits."""
        if batch.redrive is not None:
            return True
        source = self._state.backlog.source_of(batch)
        assert source is not None, "a log is let go of only when no batch of it is left"
        try:
            source.log.commit(sync=True)
        except OSError as error:
            log.error(
                "sink %s: batch %s waits, as the log's journal cannot be written: %s",
                self._state.spec.name,
                batch.batch_id,
                error,
            )
            batch.attempt -= 1
            self._recover(worker, batch)
            return False
        return True

    def _age_s(self, batch: Batch, now: float) -> float:
        with self._state.lock:
            return self._state.breaker.closed_s(now) - batch.first_closed_s

    def _recover(self, worker: Worker, batch: Batch) -> None:
        """A worker goes on whatever happens to one batch, and the batch is tried again."""
        state = self._state
        with state.lock:
            if worker.batch is batch:
                if worker.permit is not None:
                    state.breaker.ignored(worker.permit)
                worker.end()
                state.backlog.waiting.push(batch, state.clock.monotonic() + RECOVER_S)

    def _take(self, worker: Worker) -> Batch | Chore | None:
        """What a worker is to do next, who waits here until there is something; None to end."""
        state = self._state
        with state.lock:
            while True:
                if worker.stopping or state.phase == STOPPED:
                    self._rest(worker, False, state.clock.monotonic())
                    state.work_to_do.notify()
                    return None
                now = state.clock.monotonic()
                found = state.next(now)
                if found is not None:
                    self._rest(worker, False, now)
                if isinstance(found, Chore):
                    state.chores += 1
                    state.work_to_do.notify()
                    return found
                if found is not None:
                    batch = found
                    before = state.breaker.state
                    worker.begin(batch, now, state.breaker.permit(now))
                    worker.answered()  # the manifest comes first
                    if state.tuning.limits_writes:
                        state.tuning.began(len(state.in_hand()))
                    probing = state.breaker.state != before
                    worker.sink = state.sinks
                    if batch.outcome is None:
                        batch.attempt += 1
                    fresh = batch.first_attempt_s is None
                    if fresh:
                        batch.first_attempt_s = now
                        batch.first_closed_s = state.breaker.closed_s(now)
                        state.figures.flushes[batch.reason] += 1
                    state.work_to_do.notify()
                    break
                self._rest(worker, True, now)
                self._wait(now)
        if probing:
            state.observer.breaker_changed(
                state.spec.name, state.breaker.state, state.breaker.cause
            )
        if fresh:
            state.observer.batch_closed(batch)
        return batch

    def _rest(self, worker: Worker, idle: bool, now: float) -> None:
        """Whether a worker has something to do: for the autoscaler.

        One that is woken and finds nothing was idle all the while.
        """
        if worker.idle is not idle:
            worker.idle = idle
            self._state.scaler.rests(1 if idle else -1, now)

    def _wait(self, now: float) -> None:
        """Sleep until there is work, at most until something falls due of itself.

        `_alarm` is a time at which some idle worker wakes unasked, None if that is not known:
        an append that needs nobody earlier wakes nobody.  `_called` is set while a worker was woken
        for an append and has not come yet: it will see what was appended meanwhile.  A worker
        that is held back may take nothing until an attempt ends: an append need not wake it.
        """
        state = self._state
        held_back = state.saturated
        state.idle += not held_back  # before the last look; see `appended`
        try:
            due = state.due_s(now)
            if due is not None:
                state.alarm = now + due if state.alarm is None else min(state.alarm, now + due)
            if due is None or due > 0:
                state.clock.wait(state.work_to_do, due)
        finally:
            state.idle -= not held_back
            state.alarm, state.called = None, False

    def look(self) -> None:
        """Cut off attempts that take too long; the watchdog's part."""
        state = self._state
        now = state.clock.monotonic()
        with state.lock:
            if state.phase not in (RUNNING, DRAINING):
                return
            before = state.breaker.state
            orphans = AttemptWatch(pool=state.pool, slot=state.slot).look(
                now, timeout_s=state.spec.settings.attempt_timeout_s
            )
            for orphan in orphans:
                if orphan.permit is not None:
                    state.breaker.failed(orphan.permit, now, "the sink hangs in a write")
                if orphan.sink == state.sinks:  # of a sink that was replaced it says nothing
                    state.tuning.pressed(orphan.batch, state.spec.settings.attempt_timeout_s, now)
                state.backlog.waiting.push(orphan.batch, now + RECOVER_S)
            if not state.pool.stuck(state.spec.settings.max_hung_workers):
                state.grow_to_least()
            now_is, cause = state.breaker.state, state.breaker.cause
            state.work_to_do.notify_all()
        if now_is != before:
            state.observer.breaker_changed(state.spec.name, now_is, cause)
