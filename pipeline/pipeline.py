"""One sink's path through the engine, wired in the order a record takes it:

    admission -> (the log) -> backlog -> breaker -> worker -> deliver -> settle | wait | split

Request threads call `appended` and what makes room; workers run `Consumer.work`; the watchdog calls
`look` and the autoscaler `scale`; the control thread calls `configure`, `adopt`, `begin_drain` and
`halt`.  The lock of `State` guards the backlog, the breaker, what each worker holds, the phase and
the figures.  A log's lock may be taken inside it, never the reverse; no I/O happens under it.  A
record moves from one place to the next under that lock or the log's, so that a count made under
both sees every record once.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Sequence

from pipeline.delivery.breaker import CLOSED
from pipeline.delivery.consumer import Consumer
from pipeline.delivery.staffing import Staffing
from pipeline.delivery.tuning import Tuning
from pipeline.delivery.workers import Worker, WorkerPool, WorkerRun
from pipeline.drops import Drops
from pipeline.log.frame import Frame
from pipeline.log.log import Log
from pipeline.log.recovery import Replay
from pipeline.observer import Observer
from pipeline.reader import Reader
from pipeline.record import Batch
from pipeline.redrive import Redriven
from pipeline.runtime.clock import Clock
from pipeline.source import Source
from pipeline.spec import PipelineSpec
from pipeline.state import DRAINING, NEW, RUNNING, STOPPED, State


class Pipeline:
    """See the module's text.  Made stopped; `start` may come before or after the first offer."""

    def __init__(
        self, *, spec: PipelineSpec, journal: Log, clock: Clock, observer: Observer
    ) -> None:
        self.key = spec.key
        self._state = State(spec=spec, journal=journal, clock=clock, observer=observer)
        self.lock = self._state.lock
        self.admission = self._state.admission
        self.breaker = self._state.breaker
        self.figures = self._state.figures
        reader = Reader(self._state)
        self._drops = Drops(self._state, reader)
        self._consumer = Consumer(self._state, reader=reader, drops=self._drops)
        self._state.pool = WorkerPool(
            name=f"sink-{spec.name}",
            work=self._consumer.work,
            ended=self._worker_ended,
            clock=clock,
        )
        self._staffing = Staffing(self._state)
        # What request threads and the keeper ask for when there is no room.
        self.make_room = self._drops.make_room
        self.pass_by = self._drops.pass_by
        self.let_file_go = self._drops.let_file_go
        self.drop_unlogged = self._drops.drop_unlogged
        self.shed = self._drops.shed
        self.look = self._consumer.look
        self.scale = self._staffing.scale

    @property
    def spec(self) -> PipelineSpec:
        return self._state.spec

    # --- configuration and life ------------------------------------------------------------

    def configure(self, spec: PipelineSpec) -> None:
        """Take on changed settings; a changed fingerprint also replaces the sink object."""
        state = self._state
        replace = spec.fingerprint != state.spec.fingerprint
        with self.lock:
            state.spec = spec
            state.backlog.configure(spec.settings, state.in_hand())
            self.breaker.configure(spec.settings.breaker, state.clock.monotonic())
            state.poison.configure(spec.settings.poison_limit)
            state.tuning.configure(spec.settings, now=state.clock.monotonic())
            state.backlog.resize(state.tuning.batch_limit)
            state.scaler.configure(spec.settings.autoscale)
            if state.phase in (RUNNING, DRAINING):
                state.grow_to_least()
                state.shrink_to_most()
            state.work_to_do.notify_all()
        self.admission.configure(spec.settings, name=spec.name)
        if replace:
            state.slot.replace(spec.sink_factory)
            with self.lock:  # what waits for the old sink to recover has no reason to wait longer
                state.sinks += 1
                self.breaker.reset(state.clock.monotonic())
                state.poison.reset()
                state.tuning = Tuning(spec.settings)
                state.backlog.resize(state.tuning.batch_limit)
                state.backlog.waiting.collapse(state.clock.monotonic())
                state.work_to_do.notify_all()
            state.observer.breaker_changed(spec.name, CLOSED, "")

    def start(self) -> None:
        """Start delivering; does nothing when started or stopped before."""
        state = self._state
        with self.lock:
            if state.phase != NEW:
                return
            state.phase = DRAINING if state.retiring else RUNNING
            state.grow_to_least()

    def adopt(self, journal: Log, replays: Sequence[Replay]) -> bool:
        """Deliver what another process's log holds for this sink, its open batches first.

        It counts against this sink's share of the log, whatever that share is.  Returns False when
        this pipeline has ended: then another has to.
        """
        state = self._state
        with self.lock:
            if state.phase == STOPPED:
                return False
            source = Source(
                log=journal,
                sink=state.key,
                settings=state.spec.settings,
                replays=replays,
                adopted=True,
            )
            state.backlog.add(source)
            with journal.lock:
                tenants = source.waiting_by_tenant()
            self.admission.adopt(tenants, source.waiting_bytes)
            state.work_to_do.notify_all()
            return True

    def let_go(self, journal: Log) -> None:
        """A log that was adopted holds nothing any more."""
        with self.lock:
            for source in self._state.backlog.adopted:
                if source.log is journal:
                    self._state.backlog.remove(source)
                    self._state.finished.append(journal.log_id)

    def forget(self, log_id: str) -> None:
        """Have the sink told that nothing will be sent again under this name."""
        with self.lock:
            self._state.finished.append(log_id)

    def begin_drain(self, *, last: bool = False) -> None:
        """Close every batch at once and try again at once what waits to be tried again.

        With `last`, what fails then is left in the log's files, if it has any.
        """
        state = self._state
        with self.lock:
            if state.phase in (NEW, STOPPED):
                return
            state.phase = DRAINING
            state.last_try = last and state.on_disk
            # Whatever kept it waiting, everything is tried once more.
            self.breaker.reset(state.clock.monotonic())
            state.backlog.waiting.collapse(state.clock.monotonic())
            state.work_to_do.notify_all()

    def retire(self) -> None:
        """Take nothing more, deliver what is held, then stop: this sink's configuration is gone."""
        state = self._state
        self.admission.close()
        with self.lock:
            state.retiring = True
            # Nobody could resume it any more.
            state.spec = dataclasses.replace(state.spec, paused=False)
        if state.spec.misconfigured:
            self.discard("sink_removed")
        self.begin_drain()
        state.end_if_retired()

    def discard(self, reason: str) -> None:
        """Drop what waits, as `reason`; from a sink that is gone also what fails later."""
        with self.lock:
            self._state.given_up = reason
        self._drops.drop_held(reason)
        self._drops.drop_lagging(reason)

    def revive(self) -> bool:
        """Take a retirement back, as the configuration is there again; False if it is over."""
        state = self._state
        with self.lock:
            if state.phase == STOPPED:
                return False
            state.retiring, state.given_up = False, ""
            if state.phase == DRAINING:
                state.phase = RUNNING
            self.admission.reopen()
            return True

    def give_back(self, records: int, nbytes: int, *, tenant: str) -> None:
        """Room that an offer had reserved and does not use."""
        with self.lock:
            self.admission.release(records, nbytes, tenant=tenant, drained=False)
            self._state.something_settled.notify_all()
        self._state.end_if_retired()

    def flush(self, below: int) -> None:
        """Close batches now until every frame below position `below` has left the batcher."""
        with self.lock:
            self._state.backlog.own.batcher.flush_below(below)
            self._state.work_to_do.notify()

    def await_settled(self, below: int | None, timeout_s: float) -> bool:
        """Wait until nothing (below a position) is held; returns whether that came to be.

        Gives up early when nothing moves any more, as what is left is safe in the log.
        """
        state = self._state
        due = state.clock.monotonic() + timeout_s
        with self.lock:
            while True:
                held = state.in_hand()
                lowest = state.backlog.lowest_position(held)
                if below is None:
                    # Room is held from before the append: an offer under way is waited for too.
                    if not self.admission.held_records:
                        return True
                elif lowest is None or lowest >= below:
                    return True
                left = due - state.clock.monotonic()
                if left <= 0 or self._idles():
                    return False
                state.clock.wait(state.something_settled, left)

    def _idles(self) -> bool:
        """Whether nothing moves here nor will: not started, paused, or tried for the last time."""
        state = self._state
        if state.in_hand() or state.chores:
            return False
        if state.phase in (NEW, STOPPED) or not state.deliverable():
            return True
        if not state.last_try:
            return False
        if self.admission.held_records > state.backlog.held_records([]):
            return False  # an offer is on its way into the log
        now = state.clock.monotonic()
        return self.breaker.state != CLOSED or state.backlog.due_s(now, shutdown=True) is None

    def halt(self) -> None:
        """Begin no write any more; the first of the three steps of a stop."""
        state = self._state
        self.admission.close()
        with self.lock:
            state.phase = STOPPED
            state.work_to_do.notify_all()
            state.something_settled.notify_all()

    def abort(self, timeout_s: float) -> None:
        """Let writes end within `timeout_s`, then abort the sink under those that hang."""
        state = self._state
        if state.pool.join(timeout_s):
            # In a thread of its own: what hangs a write may hang the abort.
            threading.Thread(
                target=state.slot.abort,
                name=f"sink-{state.spec.name}-abort",
                daemon=True,
            ).start()

    def end(self, timeout_s: float) -> list[str]:
        """Join the workers, drop what is left in memory alone, close the sink.

        Returns the names of threads that would not end within `timeout_s`.
        """
        state = self._state
        remaining = state.pool.join(timeout_s)
        self._drops.give_redrives_up()
        if not state.on_disk:
            self._drops.drop_held()
        state.slot.close()
        return [worker.name for worker in remaining]

    # --- request threads -------------------------------------------------------------------

    def appended(self, frame: Frame) -> None:
        """A frame with a share for this sink was appended: wake a worker if it matters now.

        Looks without the lock first, as most appends need nobody.  That is safe because the append
        came before the look, and a worker says that it is idle, or that it has come, before it
        looks at the log for the last time: one of the two sees the other.
        """
        state = self._state
        if state.idle:
            alarm = state.alarm
            if not state.called and (
                alarm is None
                or frame.arrived_s + state.spec.settings.max_wait_s < alarm
                or state.backlog.own.batcher.full
            ):
                with self.lock:
                    if state.idle:  # else nobody would come and take the call back
                        state.called = True
                        state.work_to_do.notify()
        if state.phase == STOPPED and not state.on_disk:
            self._drops.drop_held()  # it raced with the stop, which did not see it

    def redrive(self, batch: Batch) -> None:
        """Deliver a batch of dead letters among the others."""
        state = self._state
        with self.lock:
            if state.phase != STOPPED:
                state.backlog.waiting.push(batch, state.clock.monotonic())
                state.work_to_do.notify()
                return
        assert batch.redrive is not None
        batch.redrive.done(Redriven(given_up=True))

    # --- what is held, and figures ---------------------------------------------------------

    @property
    def hung(self) -> list[str]:
        """The names of the threads that hang in the sink and were given up."""
        return self._state.pool.hung

    def _worker_ended(self, worker: Worker) -> None:
        state = self._state
        state.observer.worker_ended(worker.run_of(state.spec.name, state.clock.time_us()))

    def logs(self) -> list[Log]:
        """The logs that this pipeline reads: its process's own, and those it has adopted."""
        with self.lock:
            return [source.log for source in self._state.backlog.sources]

    def held_by_tenant(self, journal: Log) -> Counter[str]:
        """Every record held of one log, counted where it is; needs `lock` and the log's lock."""
        state = self._state
        held: Counter[str] = Counter()
        for source in state.backlog.sources:
            if source.log is journal:
                held += state.backlog.held_by_tenant(source, state.in_hand())
        return held

    @property
    def batch_limit(self) -> int:
        """The count at which a batch closes now."""
        return self._state.backlog.max_records

    @property
    def write_limit(self) -> int:
        """How many batches may be with the sink at once now."""
        return self._state.tuning.write_limit

    def breaker_stats(self) -> dict[str, object]:
        """The breaker as plain JSON values; needs `lock`."""
        state = self._state
        breaker, now = state.breaker, state.clock.monotonic()
        since = breaker.opened_at
        return {
            "state": breaker.state,
            "opened_at": None if since is None else state.clock.time_us() / 1e6 - (now - since),
            "retry_in_s": breaker.retry_in_s(now),
            "trips": breaker.trips,
            "cause": breaker.cause,
        }

    @property
    def state(self) -> str:
        """One word for the operator."""
        state = self._state
        if state.spec.misconfigured:
            return "misconfigured"
        if state.pool.stuck(state.spec.settings.max_hung_workers):
            return "stuck"
        if state.phase == RUNNING and state.spec.paused:
            return "paused"
        if state.phase == RUNNING and (self.figures.failing or self._is_failing()):
            return "failing"
        return "retiring" if state.retiring and state.phase == DRAINING else state.phase

    def _is_failing(self) -> bool:
        """Whether the breaker is open, or some batch fails while others succeed."""
        with self.lock:
            return self.breaker.state != CLOSED or any(
                batch.attempt >= 2 for batch in self._state.backlog.batches()
            )

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do, nor will be."""
        return self._state.phase == STOPPED and not self.admission.held_records

    @property
    def gone(self) -> bool:
        """Whether its last worker has left too, which may be the one that closes the sink."""
        return self.ended and not len(self._state.pool)

    @property
    def workers(self) -> list[Worker]:
        return self._state.pool.workers

    def runs(self) -> list[WorkerRun]:
        """The lives of the living workers."""
        return [worker.run_of(self._state.spec.name) for worker in self._state.pool.workers]

    def oldest_s(self) -> float:
        """How long ago the oldest record held arrived (seconds); 0 when none is held."""
        state = self._state
        with self.lock:
            held = [*state.in_hand(), *state.backlog.batches()]
            arrivals = [p.frame.arrived_s for batch in held for p in batch.parts]
            for source in state.backlog.sources:
                waiting = source.batcher.waiting_since_s()
                if waiting is not None:
                    arrivals.append(waiting)
        return max(0.0, state.clock.monotonic() - min(arrivals)) if arrivals else 0.0
