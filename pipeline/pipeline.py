"""One sink's path through the engine, wired in the order a record takes it:

    admission -> (the log) -> cursor -> batcher -> worker -> deliver -> settle | wait | split

Request threads call `admission` and `appended`; workers run `_work`; the control thread calls
`configure`, `drain` and `stop`.  `lock` guards the batcher, the waiting batches, what each worker
holds, the phase and the figures.  The log's lock may be taken inside it, never the reverse; no
I/O happens under it.  A record moves from one place to the next under `lock` or the log's lock,
so that a count made under both sees every record once.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections import Counter
from collections.abc import Sequence

from pipeline.batching.batcher import Batcher
from pipeline.delivery.deliver import Outcome, deliver
from pipeline.delivery.slot import SinkSlot
from pipeline.delivery.waiting import WaitingBatches
from pipeline.delivery.workers import Worker, WorkerPool, WorkerRun
from pipeline.errors import SinkFault
from pipeline.figures import Figures
from pipeline.intake.admission import Admission
from pipeline.log.frame import Frame
from pipeline.log.log import Log
from pipeline.observer import Observer
from pipeline.record import Batch, Part, Record
from pipeline.runtime.clock import Clock
from pipeline.settlement import Settled, Settlement, tell_receipts
from pipeline.spec import PipelineSpec

log = logging.getLogger(__name__)

# A failing sink during a drain is tried again this often at least (seconds).
DRAIN_RETRY_CAP_S = 1.0
# A batch that failed so often while others were stored is taken apart.
SUSPECT_ATTEMPTS = 5
# A batch whose delivery broke inside the engine is tried again after so long.
RECOVER_S = 1.0

_LOST_BECAUSE = {
    "shutdown": "they were not stored before the stop",
    "sink_removed": "the sink they waited for was removed",
}

NEW, RUNNING, DRAINING, STOPPED = "new", "running", "draining", "stopped"


class Pipeline:
    """See the module's text.  Made stopped; `start` may come before or after the first offer."""

    def __init__(self, *, spec: PipelineSpec, journal: Log, clock: Clock, observer: Observer):
        self.spec = spec
        self.key = spec.key
        self.lock = threading.Lock()
        self.admission = Admission(name=spec.name, settings=spec.settings, clock=clock)
        self._clock = clock
        self._observer = observer
        self._log = journal
        self._cursor = journal.cursor(spec.key)
        self._batcher = Batcher(log=journal, cursor=self._cursor, settings=spec.settings)
        self._waiting = WaitingBatches()
        self._slot = SinkSlot(spec.sink_factory)
        self._pool = WorkerPool(
            name=f"sink-{spec.name}", work=self._work, ended=self._worker_ended, clock=clock
        )
        self._work_to_do = threading.Condition(self.lock)
        self._something_settled = threading.Condition(self.lock)
        self._phase = NEW
        self._retiring = False
        self._given_up = ""
        self._idle = 0
        self._alarm: float | None = None
        self._called = False
        self._sinks = 1  # how many sink objects there have been
        self.figures = Figures()
        self._ends = Settlement(
            key=spec.key,
            journal=journal,
            admission=self.admission,
            figures=self.figures,
            observer=observer,
        )

    # --- configuration and life ------------------------------------------------------------

    def configure(self, spec: PipelineSpec) -> None:
        """Take on changed settings; a changed fingerprint also replaces the sink object."""
        replace = spec.fingerprint != self.spec.fingerprint
        with self.lock:
            self.spec = spec
            self._batcher.configure(spec.settings)
            if self._phase in (RUNNING, DRAINING):
                self._grow_to_least()
            self._work_to_do.notify_all()
        self.admission.configure(spec.settings, name=spec.name)
        if replace:
            self._slot.replace(spec.sink_factory)
            with self.lock:  # what waits for the old sink to recover has no reason to wait longer
                self._sinks += 1
                self._waiting.collapse(self._clock.monotonic())
                self._work_to_do.notify_all()

    def start(self) -> None:
        """Start delivering; does nothing when started or stopped before."""
        with self.lock:
            if self._phase != NEW:
                return
            self._phase = DRAINING if self._retiring else RUNNING
            self._grow_to_least()

    def _grow_to_least(self) -> None:
        """At least `min_workers`; threads start under `lock`, so that a stop misses none."""
        least = self.spec.settings.min_workers
        while self._pool.grow(limit=least):
            pass

    def _grow_if_crowded(self) -> None:
        """One more worker when a whole batch waits and nobody is free to take it."""
        if self._idle or self._phase not in (RUNNING, DRAINING):
            return
        limit = self.spec.settings.max_workers
        if len(self._pool) < limit and self._deliverable() and self._batcher.full:
            self._pool.grow(limit=limit)

    def begin_drain(self) -> None:
        """Close every batch at once and try again at once what waits to be tried again."""
        with self.lock:
            if self._phase in (NEW, STOPPED):
                return
            self._phase = DRAINING
            self._waiting.collapse(self._clock.monotonic())
            self._work_to_do.notify_all()

    def retire(self) -> None:
        """Take nothing more, deliver what is held, then stop: this sink's configuration is gone."""
        self.admission.close()
        with self.lock:
            self._retiring = True
            # Nobody could resume it any more.
            self.spec = dataclasses.replace(self.spec, paused=False)
        if self.spec.misconfigured:
            self.discard("sink_removed")
        self.begin_drain()
        self._end_if_retired()

    def discard(self, reason: str) -> None:
        """Drop what waits, as `reason`; from a sink that is gone also what fails later."""
        with self.lock:
            self._given_up = reason
        self._drop_held(reason)

    def revive(self) -> bool:
        """Take a retirement back, as the configuration is there again; False if it is over."""
        with self.lock:
            if self._phase == STOPPED:
                return False
            self._retiring, self._given_up = False, ""
            if self._phase == DRAINING:
                self._phase = RUNNING
            self.admission.reopen()
            return True

    def give_back(self, records: int, nbytes: int) -> None:
        """Room that an offer had reserved and does not use."""
        with self.lock:
            self.admission.release(records, nbytes, drained=False)
            self._something_settled.notify_all()
        self._end_if_retired()

    def flush(self, below: int) -> None:
        """Close batches now until every frame below position `below` has left the batcher."""
        with self.lock:
            self._batcher.flush_below(below)
            self._work_to_do.notify()

    def await_settled(self, below: int | None, timeout_s: float) -> bool:
        """Wait until nothing (below a position) is held; returns whether that came to be."""
        due = self._clock.monotonic() + timeout_s
        with self.lock:
            while True:
                lowest = self._lowest_held()
                if below is None:
                    # Room is held from before the append: an offer under way is waited for too.
                    if not self.admission.held_records:
                        return True
                elif lowest is None or lowest >= below:
                    return True
                left = due - self._clock.monotonic()
                if left <= 0 or self._idles():
                    return False
                self._clock.wait(self._something_settled, left)

    def _idles(self) -> bool:
        """Whether nothing moves here nor will: not started, paused or misconfigured."""
        return (self._phase == NEW or not self._deliverable()) and not any(
            worker.batch for worker in self._pool.workers
        )

    def halt(self) -> None:
        """Begin no write any more; the first of the three steps of a stop."""
        self.admission.close()
        with self.lock:
            self._phase = STOPPED
            self._work_to_do.notify_all()

    def abort(self, timeout_s: float) -> None:
        """Let writes end within `timeout_s`, then abort the sink under those that hang."""
        if self._pool.join(timeout_s):
            # In a thread of its own: what hangs a write may hang the abort.
            threading.Thread(
                target=self._slot.abort, name=f"sink-{self.spec.name}-abort", daemon=True
            ).start()

    def end(self, timeout_s: float) -> list[str]:
        """Join the workers, drop what is left in memory, close the sink.

        Returns the names of threads that would not end within `timeout_s`.
        """
        remaining = self._pool.join(timeout_s)
        self._drop_held()
        self._slot.close()
        return [worker.name for worker in remaining]

    # --- request threads -------------------------------------------------------------------

    def appended(self, frame: Frame) -> None:
        """A frame with a share for this sink was appended: wake a worker if it matters now.

        Looks without the lock first, as most appends need nobody.  That is safe because the append
        came before the look, and a worker says that it is idle, or that it has come, before it
        looks at the log for the last time: one of the two sees the other.
        """
        if self._idle:
            alarm = self._alarm
            if not self._called and (
                alarm is None
                or frame.arrived_s + self.spec.settings.max_wait_s < alarm
                or self._batcher.full
            ):
                with self.lock:
                    if self._idle:  # else nobody would come and take the call back
                        self._called = True
                        self._work_to_do.notify()
        elif len(self._pool) < self.spec.settings.max_workers and self._batcher.full:
            with self.lock:
                self._grow_if_crowded()
        if self._phase == STOPPED:
            self._drop_held()  # it raced with the stop, which did not see it

    def make_room(self, records: int, nbytes: int) -> bool:
        """Room for an optional sink's share, if need be by dropping its oldest waiting records."""
        if not self.admission.could_fit(records, nbytes):
            return False
        while not self.admission.fits(records, nbytes):
            with self.lock:
                batcher = self._batcher
                if not self.admission.fits_without(
                    batcher.waiting_records, batcher.waiting_bytes, records, nbytes
                ):
                    break  # what workers hold fills it: dropping the rest would be in vain
                part = batcher.take_oldest()
                if part is None:
                    break
                done = self._ends.drop([part], "backlog")
                self._something_settled.notify_all()
            self._ends.tell_dropped(self.spec.name, [part], "backlog", "the backlog was full")
            tell_receipts(done)
            self._end_if_retired()
        else:
            return True
        return False

    def pass_by(self, tenant: str, offered: Sequence[Record]) -> None:
        """An optional sink has no room even with its backlog dropped: count the records as gone."""
        records = self.spec.route.passing(offered)
        with self.lock:
            self._ends.pass_by(tenant, len(records), "backlog")
        self._observer.records_dropped(
            self.spec.name, tenant, records, "backlog", "the sink holds all that it may"
        )

    # --- workers ---------------------------------------------------------------------------

    def _work(self, worker: Worker) -> None:
        while (batch := self._take(worker)) is not None:
            try:
                outcome = deliver(
                    batch,
                    slot=self._slot,
                    worker=worker,
                    policy=self.spec.settings.retry,
                    clock=self._clock,
                    observer=self._observer,
                )
                self._finish(worker, batch, outcome)
            except Exception:
                log.exception("sink %s: batch %s broke its worker", self.spec.name, batch.batch_id)
                self._recover(worker, batch)

    def _recover(self, worker: Worker, batch: Batch) -> None:
        """A worker goes on whatever happens to one batch, and the batch is tried again."""
        with self.lock:
            if worker.batch is batch:
                worker.batch = None
                self._waiting.push(batch, self._clock.monotonic() + RECOVER_S)

    def _take(self, worker: Worker) -> Batch | None:
        """The next batch for a worker, which waits here until there is one; None to end."""
        with self.lock:
            worker.idle_since = self._clock.monotonic()
            while True:
                if worker.stopping or self._phase == STOPPED:
                    self._work_to_do.notify()
                    return None
                now = self._clock.monotonic()
                batch = self._next_batch(now)
                if batch is not None:
                    worker.batch, worker.sink = batch, self._sinks
                    batch.attempt += 1
                    fresh = batch.first_attempt_s is None
                    if fresh:
                        batch.first_attempt_s = now
                        self.figures.flushes[batch.reason] += 1
                    self._grow_if_crowded()
                    self._work_to_do.notify()
                    break
                settings = self.spec.settings
                if self._pool.retire(worker, least=settings.max_workers):
                    continue
                idle_left = worker.idle_since + settings.idle_worker_s - now
                if idle_left <= 0:
                    self._pool.retire(worker, least=settings.min_workers)
                    worker.idle_since = now
                    continue
                self._wait(now, idle_left)
        if fresh:
            self._observer.batch_closed(batch)
        return batch

    def _wait(self, now: float, idle_left: float) -> None:
        """Sleep until there is work, at most until something falls due of itself.

        `_alarm` is a time at which some idle worker wakes unasked, None if that is not known:
        an append that needs nobody earlier wakes nobody.  `_called` is set while a worker was woken
        for an append and has not come yet: it will see what was appended meanwhile.
        """
        self._idle += 1  # before the last look; see `appended`
        try:
            due = self._due_s(now)
            if due is not None and due < idle_left:
                self._alarm = now + due if self._alarm is None else min(self._alarm, now + due)
                idle_left = due
            if idle_left > 0:
                self._clock.wait(self._work_to_do, idle_left)
        finally:
            self._idle -= 1
            self._alarm, self._called = None, False

    def _deliverable(self) -> bool:
        return not (self.spec.paused or self.spec.misconfigured)

    def _may_batch(self) -> bool:
        """Whether a fresh batch may be formed: what waits for a failing sink stays in the log.

        Two may wait even where one worker is all there is, so that no single batch holds it up.
        """
        return len(self._waiting) < max(2, self.spec.settings.max_workers)

    def _due_s(self, now: float) -> float | None:
        """Seconds until this pipeline has something to do of itself."""
        if not self._deliverable():
            return None
        dues = [self._waiting.due_s(now)]
        if self._may_batch():
            dues.append(self._batcher.due_s(now, shutdown=self._phase == DRAINING))
        return min((due for due in dues if due is not None), default=None)

    def _next_batch(self, now: float) -> Batch | None:
        if not self._deliverable():
            return None
        if (batch := self._waiting.pop_due(now)) is not None:
            return batch
        shutdown = self._phase == DRAINING
        if not self._may_batch() or self._batcher.due_s(now, shutdown=shutdown) != 0:
            return None
        parts, reason = self._batcher.take(shutdown=shutdown)
        return self._batch(parts, reason, self._log.manifest.add(self.key, parts))

    def _batch(self, parts: list[Part], reason: str, number: int) -> Batch:
        return Batch(
            number=number, log_id=self._log.log_id, sink=self.key, reason=reason, parts=parts
        )

    def _finish(self, worker: Worker, batch: Batch, outcome: Outcome) -> None:
        """A worker has made an attempt: settle its batch, let it wait, or split it."""
        if outcome.error is not None:
            log.log(
                logging.INFO if outcome.split else logging.WARNING,
                "sink %s: batch %s of %d records, attempt %d: %s: %s",
                self.spec.name,
                batch.batch_id,
                batch.count,
                batch.attempt,
                type(outcome.error).__name__,
                outcome.error,
            )
        now = self._clock.monotonic()
        done: list[Settled] = []
        delay = outcome.retry_in_s
        with self.lock:
            worker.batches += 1
            self.figures.attempted(outcome, self._clock.time_us())
            if outcome.error is not None:
                worker.failures += 1
            if delay is not None and self._is_suspect(batch, outcome):
                delay, outcome = None, dataclasses.replace(outcome, retry_in_s=None, split=True)
            if delay is not None:
                if self._phase == DRAINING:
                    delay = min(delay, DRAIN_RETRY_CAP_S)
                if worker.sink != self._sinks:
                    delay = 0.0  # the sink that failed has been replaced meanwhile
                self.figures.retries += 1
                self._waiting.push(batch, now + delay)
            elif outcome.split:
                self._split(batch, now)
            else:
                worker.records += batch.count
                done = self._ends.settle(batch, outcome)
                self.figures.settled_s = now
                self._something_settled.notify_all()
            worker.batch = None
            self._work_to_do.notify()
            stopped = self._phase == STOPPED
            given_up = self._given_up if self._retiring else ""
        if delay is not None:
            assert outcome.error is not None
            self._observer.retry_scheduled(batch, delay, outcome.error)
        elif not outcome.split:
            self._ends.tell_settled(self.spec.name, batch, outcome, now)
            tell_receipts(done)
        if stopped or given_up:
            self._drop_held(given_up or "shutdown")  # a write that outlived it has failed
        self._end_if_retired()

    def _is_suspect(self, batch: Batch, outcome: Outcome) -> bool:
        """Whether a batch fails as if the sink were at fault while others are stored.

        Then some record in it is: halving finds it, and its neighbours are stored.
        """
        return (
            isinstance(outcome.error, SinkFault)
            and batch.count > 1
            and batch.attempt >= SUSPECT_ATTEMPTS
            and batch.first_attempt_s is not None
            and self.figures.settled_s > batch.first_attempt_s
        )

    def _split(self, batch: Batch, now: float) -> None:
        halves = list(batch.halves())
        numbers = self._log.manifest.split(batch.number, self.key, halves)
        for parts, number in zip(halves, numbers, strict=True):
            half = self._batch(parts, batch.reason, number)
            # Its records were first tried, and counted among the flushes, with the whole batch.
            # Its attempts are its own: isolating poison must not use up those of the neighbours.
            half.first_attempt_s = batch.first_attempt_s
            self._waiting.push(half, now)

    def _worker_ended(self, worker: Worker) -> None:
        self._observer.worker_ended(worker.run_of(self.spec.name, self._clock.time_us()))

    def _end_if_retired(self) -> None:
        """End a retirement once nothing is held, nor can come from an offer under way."""
        if not self._retiring:
            return
        with self.lock:
            if not self._retiring or self._phase == STOPPED or self.admission.held_records:
                return
            self._phase = STOPPED
            self._work_to_do.notify_all()
            self._log.remove_cursor(self.key)
        self._slot.close()

    # --- what is held ----------------------------------------------------------------------

    def _held_batches(self) -> list[Batch]:
        held = [worker.batch for worker in self._pool.workers if worker.batch is not None]
        return [*held, *self._waiting]

    def _lowest_held(self) -> int | None:
        positions = [p.frame.position for batch in self._held_batches() for p in batch.parts]
        first = self._batcher.lowest_position()
        if first is not None:
            positions.append(first)
        return min(positions, default=None)

    def held_by_tenant(self) -> Counter[str]:
        """Every record held, counted where it is; needs `lock` and the log's lock."""
        held = self._batcher.waiting_by_tenant()
        for batch in self._held_batches():
            for part in batch.parts:
                held[part.tenant] += part.count
        return held

    def _drop_held(self, reason: str = "shutdown") -> None:
        """What waits is lost, as when a stop leaves it behind in memory: count it and say so."""
        done, dropped = [], []
        now = self._clock.monotonic()
        with self.lock:
            self._waiting.collapse(now)
            while (batch := self._waiting.pop_due(now)) is not None:
                self._log.manifest.settle(batch.number)
                dropped += batch.parts
            while (part := self._batcher.take_oldest()) is not None:
                dropped.append(part)
            if dropped:
                done = self._ends.drop(dropped, reason)
                self._something_settled.notify_all()
        self._ends.tell_dropped(self.spec.name, dropped, reason, _LOST_BECAUSE[reason])
        if dropped:
            log.error(
                "sink %s: %d records are lost (%s): %s",
                self.spec.name,
                sum(part.count for part in dropped),
                reason,
                _LOST_BECAUSE[reason],
            )
        tell_receipts(done)
        self._end_if_retired()

    # --- figures ---------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """One word for the operator."""
        if self.spec.misconfigured:
            return "misconfigured"
        if self._phase == RUNNING and self.spec.paused:
            return "paused"
        if self._phase == RUNNING and (self.figures.failing or self._is_stuck()):
            return "failing"
        return "retiring" if self._retiring and self._phase == DRAINING else self._phase

    def _is_stuck(self) -> bool:
        """Whether some batch fails again and again, also while others succeed."""
        with self.lock:
            return any(batch.attempt >= 2 for batch in self._waiting)

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do, nor will be."""
        return self._phase == STOPPED and not self.admission.held_records

    @property
    def gone(self) -> bool:
        """Whether its last worker has left too, which may be the one that closes the sink."""
        return self.ended and not len(self._pool)

    @property
    def workers(self) -> list[Worker]:
        return self._pool.workers

    def runs(self) -> list[WorkerRun]:
        """The lives of the living workers."""
        return [worker.run_of(self.spec.name) for worker in self._pool.workers]

    def oldest_s(self) -> float:
        """How long ago the oldest record held arrived (seconds); 0 when none is held."""
        with self.lock:
            arrivals = [p.frame.arrived_s for b in self._held_batches() for p in b.parts]
            waiting = self._batcher.oldest_arrival_s()
        if waiting is not None:
            arrivals.append(waiting)
        return max(0.0, self._clock.monotonic() - min(arrivals)) if arrivals else 0.0
