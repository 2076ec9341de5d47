"""What one pipeline's lock guards, and the questions that are asked of it under that lock.

Its parts act on it: `Consumer` and `Verdicts` on worker threads, `Drops` and `Reader` on whichever
thread needs them, `Pipeline` on the control thread and those of requests.
"""

from __future__ import annotations

import threading

from pipeline.backlog import Backlog
from pipeline.delivery.autoscaler import Autoscaler
from pipeline.delivery.breaker import CLOSED, Breaker
from pipeline.delivery.poison import PoisonWindow
from pipeline.delivery.slot import SinkSlot
from pipeline.delivery.tuning import Tuning
from pipeline.delivery.workers import WorkerPool
from pipeline.figures import Figures
from pipeline.intake.admission import Admission
from pipeline.log.log import Log
from pipeline.observer import Observer
from pipeline.record import Batch
from pipeline.runtime.clock import Clock
from pipeline.settlement import Settlement
from pipeline.source import Chore, Source
from pipeline.spec import PipelineSpec

NEW, RUNNING, DRAINING, STOPPED = "new", "running", "draining", "stopped"


class State:
    """See the module's text.  `pool` is set by the pipeline that makes it."""

    pool: WorkerPool

    def __init__(
        self, *, spec: PipelineSpec, journal: Log, clock: Clock, observer: Observer
    ) -> None:
        self.spec = spec
        self.key = spec.key
        self.lock = threading.Lock()
        self.work_to_do = threading.Condition(self.lock)
        self.something_settled = threading.Condition(self.lock)
        self.clock = clock
        self.observer = observer
        self.log = journal
        self.admission = Admission(name=spec.name, settings=spec.settings, clock=clock)
        own = Source(log=journal, sink=spec.key, settings=spec.settings)
        self.backlog = Backlog(own, spec.settings)
        self.tuning = Tuning(spec.settings)
        self.backlog.resize(self.tuning.batch_limit)
        self.breaker = Breaker(spec.settings.breaker, clock.monotonic())
        self.poison = PoisonWindow(spec.settings.poison_limit)
        self.slot = SinkSlot(spec.sink_factory)
        self.figures = Figures()
        self.scaler = Autoscaler(spec.settings.autoscale, clock.monotonic())
        self.ends = Settlement(
            key=spec.key, admission=self.admission, figures=self.figures, observer=observer
        )
        self.phase = NEW
        self.retiring = False
        # What fails is left in the log's files, as the process is about to end.
        self.last_try = False
        # Why what fails is dropped, as its sink is gone; "" while it is not.
        self.given_up = ""
        # See `Consumer._wait`.
        self.idle = 0
        self.alarm: float | None = None
        self.called = False
        self.finished: list[str] = []  # logs that the sink need not remember any more
        self.chores = 0  # how many are being read
        self.sinks = 1  # how many sink objects there have been

    def deliverable(self) -> bool:
        return not (self.spec.paused or self.spec.misconfigured)

    @property
    def on_disk(self) -> bool:
        return self.log.files is not None

    def full_batches(self) -> int:
        """How many whole batches could be formed of what waits."""
        settings = self.spec.settings
        return sum(
            max(
                source.waiting_records // source.batcher.max_records,
                source.waiting_bytes // settings.max_bytes,
            )
            for source in self.backlog.sources
        )

    def in_hand(self) -> list[Batch]:
        return [worker.batch for worker in self.pool.workers if worker.batch is not None]

    @property
    def saturated(self) -> bool:
        """Whether as many batches are with the sink as may be at once."""
        return self.tuning.limits_writes and len(self.in_hand()) >= self.tuning.write_limit

    def due_s(self, now: float) -> float | None:
        """Seconds until this pipeline has something to do of itself."""
        if not self.deliverable() or self.pool.stuck(self.spec.settings.max_hung_workers):
            return None
        if self.saturated:
            return None  # whoever ends an attempt calls the next
        permitted = self.breaker.due_s(now)
        due = self.backlog.due_s(now, shutdown=self.phase == DRAINING)
        return None if permitted is None or due is None else max(permitted, due)

    def next(self, now: float) -> Batch | Chore | None:
        if self.due_s(now) != 0:
            return None
        probing = self.breaker.state != CLOSED
        return self.backlog.next(now, shutdown=self.phase == DRAINING, probing=probing)

    def grow_to_least(self) -> None:
        """At least `min_workers`; threads start under `lock`, so that a stop misses none."""
        least = self.spec.settings.min_workers
        while self.pool.grow(limit=least):
            pass

    def shrink_to_most(self) -> None:
        """At most `max_workers`; whoever calls this wakes those who wait for work."""
        most = self.spec.settings.max_workers
        while self.pool.shrink(least=most) is not None:
            pass

    def end_if_retired(self) -> None:
        """End a retirement once nothing is held, nor can come from an offer under way."""
        if not self.retiring:
            return
        with self.lock:
            if not self.retiring or self.phase == STOPPED or self.admission.held_records:
                return
            self.phase = STOPPED
            self.work_to_do.notify_all()
            for source in self.backlog.sources:
                source.log.remove_cursor(self.key)
        self.slot.close()
