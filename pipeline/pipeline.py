"""One sink's path through the engine, wired in the order a record takes it:

    admission -> (the log) -> backlog -> breaker -> worker -> deliver -> settle | wait | split

Request threads call `admission` and `appended`; workers run `_work`; the watchdog calls `look`; the
control thread calls `configure`, `adopt`, `drain` and `stop`.  `lock` guards the backlog, the
breaker, what each worker holds, the phase and the figures.  A log's lock may be taken inside it,
never the reverse; no I/O happens under it.  A record moves from one place to the next under `lock`
or the log's lock, so that a count made under both sees every record once.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import threading
from collections import Counter
from collections.abc import Sequence

from pipeline.backlog import Backlog
from pipeline.deadletter import DeadLetter
from pipeline.delivery.breaker import CLOSED, Breaker
from pipeline.delivery.deliver import Outcome, deliver, report
from pipeline.delivery.poison import PoisonWindow
from pipeline.delivery.slot import SinkSlot
from pipeline.delivery.watchdog import AttemptWatch
from pipeline.delivery.workers import Worker, WorkerPool, WorkerRun
from pipeline.errors import SinkFault
from pipeline.figures import Figures
from pipeline.intake.admission import Admission
from pipeline.log.frame import Frame
from pipeline.log.log import Log
from pipeline.log.recovery import Replay
from pipeline.observer import Observer
from pipeline.record import Batch, Part, Record
from pipeline.redrive import Redriven, letters_of
from pipeline.runtime.clock import Clock
from pipeline.settlement import Settled, Settlement, tell_receipts
from pipeline.source import Chore, Source
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
        own = Source(log=journal, sink=spec.key, settings=spec.settings)
        self._backlog = Backlog(own, spec.settings)
        self.breaker = Breaker(spec.settings.breaker, clock.monotonic())
        self._poison = PoisonWindow(spec.settings.poison_limit)
        self._slot = SinkSlot(spec.sink_factory)
        self._pool = WorkerPool(
            name=f"sink-{spec.name}", work=self._work, ended=self._worker_ended, clock=clock
        )
        self._watch = AttemptWatch(pool=self._pool, slot=self._slot)
        self._work_to_do = threading.Condition(self.lock)
        self._something_settled = threading.Condition(self.lock)
        self._phase = NEW
        self._retiring = False
        self._last_try = False
        self._given_up = ""
        self._idle = 0
        self._alarm: float | None = None
        self._called = False
        self._chores = 0  # how many are being read
        self._sinks = 1  # how many sink objects there have been
        self.figures = Figures()
        self._ends = Settlement(
            key=spec.key,
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
            self._backlog.configure(spec.settings)
            self.breaker.configure(spec.settings.breaker, self._clock.monotonic())
            self._poison.configure(spec.settings.poison_limit)
            if self._phase in (RUNNING, DRAINING):
                self._grow_to_least()
            self._work_to_do.notify_all()
        self.admission.configure(spec.settings, name=spec.name)
        if replace:
            self._slot.replace(spec.sink_factory)
            with self.lock:  # what waits for the old sink to recover has no reason to wait longer
                self._sinks += 1
                self.breaker.reset(self._clock.monotonic())
                self._poison.reset()
                self._backlog.waiting.collapse(self._clock.monotonic())
                self._work_to_do.notify_all()
            self._observer.breaker_changed(spec.name, CLOSED, "")

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
        if len(self._pool) < limit and self._deliverable() and self._backlog.full:
            self._pool.grow(limit=limit)

    def adopt(self, journal: Log, replays: Sequence[Replay]) -> None:
        """Deliver what another process's log holds for this sink, its open batches first.

        It counts against this sink's share of the log, whatever that share is.
        """
        with self.lock:
            if self._phase == STOPPED:
                return
            source = Source(
                log=journal,
                sink=self.key,
                settings=self.spec.settings,
                replays=replays,
                adopted=True,
            )
            self._backlog.add(source)
            self.admission.adopt(source.waiting_records, source.waiting_bytes)
            self._work_to_do.notify_all()

    def let_go(self, journal: Log) -> None:
        """A log that was adopted holds nothing any more."""
        with self.lock:
            for source in self._backlog.adopted:
                if source.log is journal:
                    self._backlog.remove(source)

    def begin_drain(self, *, last: bool = False) -> None:
        """Close every batch at once and try again at once what waits to be tried again.

        With `last`, what fails then is left in the log's files, if it has any.
        """
        with self.lock:
            if self._phase in (NEW, STOPPED):
                return
            self._phase = DRAINING
            self._last_try = last and self._on_disk
            # Whatever kept it waiting, everything is tried once more.
            self.breaker.reset(self._clock.monotonic())
            self._backlog.waiting.collapse(self._clock.monotonic())
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
        self._drop_lagging(reason)

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
            self._backlog.own.batcher.flush_below(below)
            self._work_to_do.notify()

    def await_settled(self, below: int | None, timeout_s: float) -> bool:
        """Wait until nothing (below a position) is held; returns whether that came to be.

        Gives up early when nothing moves any more, as what is left is safe in the log.
        """
        due = self._clock.monotonic() + timeout_s
        with self.lock:
            while True:
                held = self._workers_batches()
                lowest = self._backlog.lowest_position(held)
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
        """Whether nothing moves here nor will: not started, paused, or tried for the last time."""
        if self._workers_batches() or self._chores:
            return False
        if self._phase in (NEW, STOPPED) or not self._deliverable():
            return True
        if not self._last_try:
            return False
        now = self._clock.monotonic()
        return self.breaker.state != CLOSED or self._backlog.due_s(now, shutdown=True) is None

    @property
    def _on_disk(self) -> bool:
        return self._log.files is not None

    def _workers_batches(self) -> list[Batch]:
        return [worker.batch for worker in self._pool.workers if worker.batch is not None]

    def halt(self) -> None:
        """Begin no write any more; the first of the three steps of a stop."""
        self.admission.close()
        with self.lock:
            self._phase = STOPPED
            self._work_to_do.notify_all()
            self._something_settled.notify_all()

    def abort(self, timeout_s: float) -> None:
        """Let writes end within `timeout_s`, then abort the sink under those that hang."""
        if self._pool.join(timeout_s):
            # In a thread of its own: what hangs a write may hang the abort.
            threading.Thread(
                target=self._slot.abort, name=f"sink-{self.spec.name}-abort", daemon=True
            ).start()

    def end(self, timeout_s: float) -> list[str]:
        """Join the workers, drop what is left in memory alone, close the sink.

        Returns the names of threads that would not end within `timeout_s`.
        """
        remaining = self._pool.join(timeout_s)
        self._give_redrives_up()
        if not self._on_disk:
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
                or self._backlog.own.batcher.full
            ):
                with self.lock:
                    if self._idle:  # else nobody would come and take the call back
                        self._called = True
                        self._work_to_do.notify()
        elif len(self._pool) < self.spec.settings.max_workers and self._backlog.own.batcher.full:
            with self.lock:
                self._grow_if_crowded()
        if self._phase == STOPPED and not self._on_disk:
            self._drop_held()  # it raced with the stop, which did not see it

    def make_room(self, records: int, nbytes: int) -> bool:
        """Room for an optional sink's share, if need be by dropping its oldest waiting records."""
        if not self.admission.could_fit(records, nbytes):
            return False
        while not self.admission.fits(records, nbytes):
            chore: Chore | None = None
            with self.lock:
                waiting = [source.waiting_records for source in self._backlog.sources]
                waiting_bytes = [source.waiting_bytes for source in self._backlog.sources]
                if not self.admission.fits_without(
                    sum(waiting), sum(waiting_bytes), records, nbytes
                ):
                    break  # what workers hold fills it: dropping the rest would be in vain
                taken = self._backlog.take_oldest()
                if taken is None:
                    chore = self._chore()
                    if chore is None:
                        break
                else:
                    done = self._drop_unread(*taken, "backlog")
            if chore is not None:
                self._run_chore(chore)
                continue
            assert taken is not None
            self._ends.tell_dropped(self.spec.name, [taken[1]], "backlog", "the backlog was full")
            tell_receipts(done)
            self._end_if_retired()
        else:
            return True
        return False

    def let_file_go(self, file: int) -> None:
        """Drop the waiting records of an optional sink that stand in `file` of the own log."""
        own = self._backlog.own
        dropped = 0
        while True:
            part: Part | None = None
            chore: Chore | None = None
            with self.lock:
                if own.batcher.head_file() == file:
                    part = own.batcher.take_oldest()
                elif own.batcher.lags:
                    chore = own.chore(self._clock.monotonic())
                    self._chores += chore is not None
                done = self._drop_unread(own, part, "backlog") if part is not None else []
            if part is not None:
                dropped += part.count
                self._ends.tell_dropped(self.spec.name, [part], "backlog", "the log was full")
                tell_receipts(done)
            elif chore is None:
                break
            else:
                self._run_chore(chore)
                if chore.failed:
                    break
        if dropped:
            log.warning(
                "sink %s: its %d oldest records are dropped (backlog), as the log was nearly full",
                self.spec.name,
                dropped,
            )

    def _drop_unread(self, source: Source, part: Part, reason: str) -> list[Settled]:
        done = self._ends.drop_unread(source.log, part, source.batcher.rest, reason)
        self._something_settled.notify_all()
        return done

    def pass_by(self, tenant: str, offered: Sequence[Record]) -> None:
        """An optional sink has no room even with its backlog dropped: count the records as gone."""
        records = self.spec.route.passing(offered)
        with self.lock:
            self._ends.pass_by(self._log, tenant, len(records), "backlog")
        self._observer.records_dropped(
            self.spec.name, tenant, records, "backlog", "the sink holds all that it may"
        )

    def redrive(self, batch: Batch) -> None:
        """Deliver a batch of dead letters among the others."""
        with self.lock:
            if self._phase != STOPPED:
                self._backlog.waiting.push(batch, self._clock.monotonic())
                self._work_to_do.notify()
                return
        assert batch.redrive is not None
        batch.redrive.done(Redriven(given_up=True))

    # --- workers ---------------------------------------------------------------------------

    def _work(self, worker: Worker) -> None:
        while (found := self._take(worker)) is not None:
            if isinstance(found, Chore):
                self._run_chore(found)
                continue
            try:
                self._attempt(worker, found)
            except Exception:
                log.exception("sink %s: batch %s broke its worker", self.spec.name, found.batch_id)
                self._recover(worker, found)
            if worker.disowned:
                return

    def _attempt(self, worker: Worker, batch: Batch) -> None:
        """One attempt, from the manifest on disk to what follows from the sink's answer."""
        outcome = batch.outcome
        if outcome is None:
            if not self._commit(worker, batch):
                return
            worker.sending(self._clock.monotonic())
            outcome = deliver(
                batch,
                slot=self._slot,
                worker=worker,
                policy=self.spec.settings.retry,
                clock=self._clock,
                observer=self._observer,
                age_s=lambda now: self._age_s(batch, now),
            )
        self._finish(worker, batch, outcome)

    def _commit(self, worker: Worker, batch: Batch) -> bool:
        """Have the manifest on disk before anything is sent; without it the batch waits."""
        source = self._backlog.source_of(batch)
        if source is None:
            return True
        try:
            source.log.commit(sync=True)
        except OSError as error:
            log.error(
                "sink %s: batch %s waits, as the log's journal cannot be written: %s",
                self.spec.name,
                batch.batch_id,
                error,
            )
            batch.attempt -= 1
            self._recover(worker, batch)
            return False
        return True

    def _age_s(self, batch: Batch, now: float) -> float:
        with self.lock:
            return self.breaker.closed_s(now) - batch.first_closed_s

    def _recover(self, worker: Worker, batch: Batch) -> None:
        """A worker goes on whatever happens to one batch, and the batch is tried again."""
        with self.lock:
            if worker.batch is batch:
                if worker.permit is not None:
                    self.breaker.ignored(worker.permit)
                worker.end()
                self._backlog.waiting.push(batch, self._clock.monotonic() + RECOVER_S)

    def _chore(self) -> Chore | None:
        """Something to be read from files, if that is what comes next; `lock` is held."""
        now = self._clock.monotonic()
        for source in self._backlog.sources:
            if (chore := source.chore(now)) is not None:
                self._chores += 1
                return chore
        return None

    def _run_chore(self, chore: Chore) -> None:
        """Read what is to be delivered next from the log's files."""
        try:
            chore.run()
        except OSError as error:
            chore.failed = True
            log.error("sink %s: the log's files cannot be read: %s", self.spec.name, error)
        except BaseException:
            chore.failed = True
            log.exception("sink %s: the log's files cannot be read", self.spec.name)
        with self.lock:
            self._chores -= 1
            now = self._clock.monotonic()
            batch = chore.source.finish(chore, now)
            lost = 0 if chore.failed else chore.lost.total()
            if lost:
                self._ends.lost(lost, chore.lost_bytes, "corrupt")
            if batch is not None:
                batch.nbytes = sum(part.nbytes for part in batch.parts)
                self._backlog.waiting.push(batch, now)
            self._work_to_do.notify()
            self._something_settled.notify_all()
        if lost:
            log.error(
                "sink %s: %d records of log %s are spoilt in its files, and dropped (corrupt)",
                self.spec.name,
                lost,
                chore.source.log.log_id,
            )

    def _take(self, worker: Worker) -> Batch | Chore | None:
        """What a worker is to do next, who waits here until there is something; None to end."""
        with self.lock:
            worker.idle_since = self._clock.monotonic()
            while True:
                if worker.stopping or self._phase == STOPPED:
                    self._work_to_do.notify()
                    return None
                now = self._clock.monotonic()
                found = self._next(now)
                if isinstance(found, Chore):
                    self._chores += 1
                    self._work_to_do.notify()
                    return found
                if found is not None:
                    batch = found
                    before = self.breaker.state
                    worker.begin(batch, now, self.breaker.permit(now))
                    worker.answered()  # the manifest comes first
                    probing = self.breaker.state != before
                    worker.sink = self._sinks
                    if batch.outcome is None:
                        batch.attempt += 1
                    fresh = batch.first_attempt_s is None
                    if fresh:
                        batch.first_attempt_s = now
                        batch.first_closed_s = self.breaker.closed_s(now)
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
        if probing:
            self._observer.breaker_changed(self.spec.name, self.breaker.state, self.breaker.cause)
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

    def _due_s(self, now: float) -> float | None:
        """Seconds until this pipeline has something to do of itself."""
        if not self._deliverable() or self._pool.stuck(self.spec.settings.max_hung_workers):
            return None
        permitted = self.breaker.due_s(now)
        due = self._backlog.due_s(now, shutdown=self._phase == DRAINING)
        return None if permitted is None or due is None else max(permitted, due)

    def _next(self, now: float) -> Batch | Chore | None:
        if self._due_s(now) != 0:
            return None
        probing = self.breaker.state != CLOSED
        return self._backlog.next(now, shutdown=self._phase == DRAINING, probing=probing)

    def _finish(self, worker: Worker, batch: Batch, outcome: Outcome) -> None:
        """A worker has made an attempt: settle its batch, let it wait, or split it."""
        now = self._clock.monotonic()
        with self.lock:
            if worker.disowned:
                log.warning(
                    "sink %s: worker %s has come back; batch %s had been taken from it",
                    self.spec.name,
                    worker.name,
                    batch.batch_id,
                )
                return
            worker.answered()
            before = self.breaker.state
            if batch.outcome is None:
                outcome = self._judge(worker, batch, outcome, now)
            elif worker.permit is not None:
                self.breaker.ignored(worker.permit)
            state, cause = self.breaker.state, self.breaker.cause
        self._log_outcome(batch, outcome)
        if state != before:
            self._observer.breaker_changed(self.spec.name, state, cause)
        letters: list[DeadLetter] = []
        if outcome.failures and outcome.retry_in_s is None and not outcome.split:
            letters = self._letters(batch, outcome)
            if letters and batch.redrive is None and not self._keep(letters):
                batch.outcome = outcome
                self._recover(worker, batch)
                return
        self._conclude(worker, batch, outcome, letters, now)

    def _judge(self, worker: Worker, batch: Batch, outcome: Outcome, now: float) -> Outcome:
        """What an attempt says of the sink, and with that of the batch; `lock` is held."""
        worker.batches += 1
        if batch.redrive is None:
            outcome = self._poison.judge(outcome, count=batch.count, attempt=batch.attempt, now=now)
        if worker.permit is not None:
            report(outcome, breaker=self.breaker, permit=worker.permit, now=now)
        self.figures.attempted(outcome, self._clock.time_us())
        if outcome.error is not None:
            worker.failures += 1
        if outcome.bystander:
            batch.attempt -= 1
        if outcome.retry_in_s is not None and self._is_suspect(batch, outcome):
            outcome = dataclasses.replace(outcome, retry_in_s=None, split=True)
        return outcome

    def _log_outcome(self, batch: Batch, outcome: Outcome) -> None:
        if outcome.error is not None and batch.outcome is None:
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

    def _letters(self, batch: Batch, outcome: Outcome) -> list[DeadLetter]:
        if self.spec.dead_letters is None and batch.redrive is None:
            return []
        since_s = self._clock.monotonic() - (batch.first_attempt_s or 0.0)
        now_us = self._clock.time_us()
        return letters_of(
            batch,
            outcome,
            sink_name=self.spec.name,
            now_us=now_us,
            since_us=now_us - round(since_s * 1e6),
        )

    def _keep(self, letters: list[DeadLetter]) -> bool:
        """Have the dead letters kept; without that their batch waits, and is not written again."""
        assert self.spec.dead_letters is not None
        try:
            self.spec.dead_letters.put(letters)
        except Exception as error:
            log.error(
                "sink %s: %d dead letters could not be kept, such as record %d; they wait: %s: %s",
                self.spec.name,
                len(letters),
                letters[0].record_id,
                type(error).__name__,
                error,
            )
            return False
        return True

    def _conclude(
        self,
        worker: Worker,
        batch: Batch,
        outcome: Outcome,
        letters: list[DeadLetter],
        now: float,
    ) -> None:
        """Put a batch where its outcome says, and tell those who are concerned."""
        done: list[Settled] = []
        delay = outcome.retry_in_s
        redrive = batch.redrive
        source = self._backlog.source_of(batch)
        with self.lock:
            if delay is not None:
                if self._phase == DRAINING:
                    delay = math.inf if self._last_try else min(delay, DRAIN_RETRY_CAP_S)
                if worker.sink != self._sinks and not outcome.bystander:
                    delay = 0.0  # the sink that failed has been replaced meanwhile
                self.figures.retries += 1
                self._backlog.waiting.push(batch, now + delay)
            elif outcome.split:
                if source is not None:
                    self._split(source, batch, now)
            else:
                worker.records += batch.count
                self.figures.settled_s = now
                if source is None:
                    self._ends.redriven(self._log, batch, outcome)
                else:
                    lettered = bool(letters)
                    done = self._ends.settle(source.log, batch, outcome, lettered=lettered)
            self._something_settled.notify_all()
            worker.end()
            self._work_to_do.notify()
            stopped = self._phase == STOPPED
            given_up = self._given_up if self._retiring else ""
        if source is not None and delay is None:
            self._write_journal(source.log)
        if delay is not None:
            assert outcome.error is not None
            self._observer.retry_scheduled(batch, delay, outcome.error)
        elif outcome.split:
            if redrive is not None:
                redrive.done(Redriven(split=True))
        else:
            kept = letters if redrive is None else []
            self._ends.tell_settled(self.spec.name, batch, outcome, kept, now)
            tell_receipts(done)
            if redrive is not None:
                redrive.done(redrive.result_of(batch, outcome, letters))
        if stopped or given_up:
            self._give_redrives_up()
            if given_up or not self._on_disk:
                self._drop_held(given_up or "shutdown")  # a write that outlived it has failed
        self._end_if_retired()

    @staticmethod
    def _write_journal(journal: Log) -> None:
        """So that what has ended is not sent again after a crash; a power cut may undo it."""
        try:
            journal.commit(sync=False)
        except OSError as error:
            log.warning("log %s: its journal cannot be written: %s", journal.log_id, error)

    def look(self) -> None:
        """Cut off attempts that take too long; the watchdog's part."""
        now = self._clock.monotonic()
        with self.lock:
            if self._phase not in (RUNNING, DRAINING):
                return
            before = self.breaker.state
            orphans = self._watch.look(now, timeout_s=self.spec.settings.attempt_timeout_s)
            for orphan in orphans:
                if orphan.permit is not None:
                    self.breaker.failed(orphan.permit, now, "the sink hangs in a write")
                self._backlog.waiting.push(orphan.batch, now + RECOVER_S)
            if not self._pool.stuck(self.spec.settings.max_hung_workers):
                self._grow_to_least()
            state, cause = self.breaker.state, self.breaker.cause
            self._work_to_do.notify_all()
        if state != before:
            self._observer.breaker_changed(self.spec.name, state, cause)

    @property
    def hung(self) -> list[str]:
        """The names of the threads that hang in the sink and were given up."""
        return self._pool.hung

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

    def _split(self, source: Source, batch: Batch, now: float) -> None:
        halves = list(batch.halves())
        numbers = source.log.split(batch.number, self.key, halves)
        for parts, number in zip(halves, numbers, strict=True):
            half = source.batch(parts, batch.reason, number)
            # Its records were first tried, and counted among the flushes, with the whole batch.
            # Its attempts are its own: isolating poison must not use up those of the neighbours.
            half.first_attempt_s = batch.first_attempt_s
            half.first_closed_s = batch.first_closed_s
            self._backlog.waiting.push(half, now)

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
            for source in self._backlog.sources:
                source.log.remove_cursor(self.key)
        self._slot.close()

    # --- what is held ----------------------------------------------------------------------

    def logs(self) -> list[Log]:
        """The logs that this pipeline reads: its process's own, and those it has adopted."""
        with self.lock:
            return [source.log for source in self._backlog.sources]

    def held_by_tenant(self, journal: Log) -> Counter[str]:
        """Every record held of one log, counted where it is; needs `lock` and the log's lock."""
        held: Counter[str] = Counter()
        for source in self._backlog.sources:
            if source.log is journal:
                held += self._backlog.held_by_tenant(source, self._workers_batches())
        return held

    def _drop_held(self, reason: str = "shutdown") -> None:
        """What is at hand is lost, as when a stop leaves it behind in memory: count and say so."""
        done: list[Settled] = []
        dropped: list[Part] = []
        with self.lock:
            for batch in self._backlog.take_waiting(lambda batch: batch.redrive is None):
                source = self._backlog.source_of(batch)
                assert source is not None, "only what is redriven comes from no log"
                done += self._ends.drop(source.log, batch, reason)
                dropped += batch.parts
            while (taken := self._backlog.take_oldest()) is not None:
                done += self._drop_unread(*taken, reason)
                dropped.append(taken[1])
            if dropped:
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

    def _drop_lagging(self, reason: str) -> None:
        """Drop what has to be read from files first, piece by piece."""
        while True:
            with self.lock:
                chore = self._chore()
            if chore is None:
                return
            self._run_chore(chore)
            if chore.failed:
                return  # the pipeline's workers find out when the files can be read again
            self._drop_held(reason)

    def _give_redrives_up(self) -> None:
        """Whoever sent dead letters once more keeps them."""
        with self.lock:
            given_up = self._backlog.take_waiting(lambda batch: batch.redrive is not None)
        for batch in given_up:
            assert batch.redrive is not None
            batch.redrive.done(Redriven(given_up=True))

    # --- figures ---------------------------------------------------------------------------

    def breaker_stats(self) -> dict[str, object]:
        """The breaker as plain JSON values; needs `lock`."""
        breaker, now = self.breaker, self._clock.monotonic()
        since = breaker.opened_at
        return {
            "state": breaker.state,
            "opened_at": None if since is None else self._clock.time_us() / 1e6 - (now - since),
            "retry_in_s": breaker.retry_in_s(now),
            "trips": breaker.trips,
            "cause": breaker.cause,
        }

    @property
    def state(self) -> str:
        """One word for the operator."""
        if self.spec.misconfigured:
            return "misconfigured"
        if self._pool.stuck(self.spec.settings.max_hung_workers):
            return "stuck"
        if self._phase == RUNNING and self.spec.paused:
            return "paused"
        if self._phase == RUNNING and (self.figures.failing or self._is_failing()):
            return "failing"
        return "retiring" if self._retiring and self._phase == DRAINING else self._phase

    def _is_failing(self) -> bool:
        """Whether the breaker is open, or some batch fails while others succeed."""
        with self.lock:
            return self.breaker.state != CLOSED or any(
                batch.attempt >= 2 for batch in self._backlog.batches()
            )

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
            held = [*self._workers_batches(), *self._backlog.batches()]
            arrivals = [p.frame.arrived_s for batch in held for p in batch.parts]
            for source in self._backlog.sources:
                waiting = source.batcher.oldest_arrival_s()
                if waiting is not None:
                    arrivals.append(waiting)
        return max(0.0, self._clock.monotonic() - min(arrivals)) if arrivals else 0.0
