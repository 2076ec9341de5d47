"""Owns: one run: a producer, an engine of one pipeline, a sink, begun and ended in order.

    producer -> offer -> queue (the pipeline's room) -> batches -> workers -> sink

Begun, looked at and ended on the command's main thread; the producer, the workers and the
autoscaler have threads of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ingest.producer.pace import pace
from ingest.producer.producer import Producer
from ingest.producer.progress import Flushes, Progress
from ingest.producer.samples import Sample
from ingest.producer.slowsink import Tally
from pipeline.batching.adaptive import AdaptiveSettings
from pipeline.delivery.autoscaler import AutoscaleSettings
from pipeline.delivery.breaker import BreakerSettings
from pipeline.delivery.retry import RetryPolicy
from pipeline.engine import Engine
from pipeline.ids import RecordIds
from pipeline.runtime.clock import Clock
from pipeline.settings import GIB, PipelineSettings
from pipeline.sink import Sink
from pipeline.spec import PipelineSpec

TENANT = "default"
# How long the producer's thread and the autoscaler's may take to end; neither does any I/O.
THREAD_STOP_S = 5.0
# What writes under way get to notice that they are aborted: those that do not are told as hanging.
ABANDON_S = 1.0
_MAX_BATCH_BYTES = 64 << 20
# A batch that was refused stands by for the next turn: how often the server is asked is not its
# own affair.
_RETRY_CAP_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Rates and waits in seconds, sizes in logs; `adaptive`: batches find their own size."""

    rate_s: float = 0.000_1
    channel_size: int = 1500
    batch_size: int = 50
    batch_timeout_s: float = 0.5
    min_workers: int = 1
    max_workers: int = 10
    autoscale_interval_s: float = 1.0
    scale_up: float = 0.8
    scale_down: float = 0.2
    adaptive: bool = False
    attempt_timeout_s: float = 60.0
    count: int | None = None
    duration_s: float | None = None

    def pipeline(self) -> PipelineSettings:
        """The settings of the one pipeline; raises ValueError where they contradict each other.

        Its refuse mark stands at the very end of the queue: the producer's pace is what keeps it
        from there.  A batch that finds its own size holds at most one worker's part of the queue,
        or a single one would empty it while the others stand by.
        """
        least = min(10, self.batch_size)
        most = max(min(10_000, self.channel_size // self.max_workers), self.batch_size)
        return PipelineSettings(
            max_records=self.batch_size,
            max_bytes=_MAX_BATCH_BYTES,
            max_wait_s=self.batch_timeout_s,
            capacity_records=self.channel_size,
            backlog_max_bytes=GIB,
            high_watermark=1.0,
            low_watermark=1.0,
            hint_watermark=1.0,
            min_workers=self.min_workers,
            max_workers=self.max_workers,
            attempt_timeout_s=self.attempt_timeout_s,
            # A server that asks to come back later is not failing.
            breaker=BreakerSettings(enabled=False),
            retry=RetryPolicy(cap_s=_RETRY_CAP_S),
            autoscale=AutoscaleSettings(
                interval_s=self.autoscale_interval_s,
                up=self.scale_up,
                down=self.scale_down,
                up_batches=0,
                cooldown_s=0.0,
            ),
            adaptive=AdaptiveSettings(
                batch=self.adaptive,
                start_records=self.batch_size,
                min_records=least,
                max_records=most,
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run, each figure counted by whom it names."""

    produced: int  # by the producer
    processed: int  # by the sink
    stored: int  # by the engine's ledger
    imbalance: int
    settled: bool

    @property
    def equal(self) -> bool:
        return self.settled and not self.imbalance and self.produced == self.processed

    def line(self) -> str:
        if self.equal and not self.produced:
            return "[RESULT] Produced=0 | Processed=0 | no log was made"
        if self.equal:
            return (
                f"[RESULT] Produced={self.produced} | Processed={self.processed} | "
                "equal: every log arrived once"
            )
        left = self.produced - self.processed
        what = f"{left} logs were not processed" if left >= 0 else f"{-left} logs came twice"
        return (
            f"[RESULT] Produced={self.produced} | Processed={self.processed} | NOT equal: {what}"
            f" (the engine counts {self.stored} stored, imbalance {self.imbalance})"
        )


NOTHING_MADE = Outcome(produced=0, processed=0, stored=0, imbalance=0, settled=True)


class Run:
    """See the module's text."""

    def __init__(
        self,
        *,
        options: RunOptions,
        sink: Callable[[], Sink],
        tally: Tally,
        clock: Clock,
        progress: Progress,
    ) -> None:
        """Raises ValueError where the options contradict each other."""
        self.options = options
        self._tally, self._clock, self._progress = tally, clock, progress
        self._on_ended: list[Callable[[], None]] = []
        self._engine = Engine(log_id="producer", ids=RecordIds(node=0, clock=clock), clock=clock)
        self._flushes = Flushes(progress)
        self._engine.observe(self._flushes)
        self._engine.configure(
            [
                PipelineSpec(
                    key="producer",
                    name="producer",
                    sink_factory=sink,
                    settings=options.pipeline(),
                    fingerprint="1",
                )
            ]
        )
        self._pipeline = self._engine.pipelines[0]
        self._producer = Producer(
            rate_s=options.rate_s,
            offer=lambda records: self._engine.offer(type="log", tenant=TENANT, records=records),
            usage=self.usage,
            ended=self._ended,
            clock=clock,
            count=options.count,
            duration_s=options.duration_s,
        )

    @property
    def why(self) -> str:
        """Why the producer ended by itself."""
        return self._producer.why

    @property
    def broke(self) -> bool:
        """Whether the producer could not go on."""
        return self._producer.broke

    def usage(self) -> float:
        """How full the queue is, 0 to 1."""
        return self._pipeline.admission.held_records / self.options.channel_size

    def on_ended(self, call: Callable[[], None]) -> None:
        """Have this called, on the producer's thread, when it has made its last log."""
        self._on_ended.append(call)

    def _ended(self) -> None:
        for call in self._on_ended:
            call()

    def start(self) -> None:
        self._engine.start()
        self._producer.start()

    def sample(self) -> Sample:
        """The figures of this moment."""
        figures = self._figures()
        return Sample(
            at_s=self._clock.monotonic(),
            produced=self._producer.produced,
            processed=self._tally.records,
            batches=self._tally.batches,
            refused=self._producer.refused,
            retries=figures["retries"],
            held=figures["held_records"],
            capacity=self.options.channel_size,
            workers=figures["workers"],
            busy=figures["busy_workers"],
            batch_limit=figures["batch_limit"],
            pause_s=pace(self.usage()),
        )

    @property
    def last_error(self) -> str:
        """What the sink said last, "" where all goes well."""
        return str(self._figures()["last_error"])

    def stop(self, timeout_s: float) -> Outcome:
        """End in order: producer, autoscaler, buffer, workers; at the latest after `timeout_s`.

        May be cut short by `abandon` from another thread.
        """
        say = self._progress.say
        if not self._producer.stop(THREAD_STOP_S):
            say("The producer's thread did not end")
        say(f"Producer stopped after {self._producer.produced} logs")
        if not self._engine.stop_scaling(THREAD_STOP_S):
            say("The autoscaler's thread did not end")
        say("Autoscaler stopped")
        self._flushes.hold()
        self._engine.drain(0.0)
        held = self._pipeline.admission.held_records
        self._flushes.begin(f"Buffer closed, {held} logs to flush")
        settled = self._engine.stop(timeout_s)
        say("All workers joined" if settled else "Not everything was flushed in time")
        return self._outcome(settled)

    def abandon(self) -> None:
        """Make a `stop` under way return soon, with what is left dropped."""
        self._engine.stop(ABANDON_S)

    def _outcome(self, settled: bool) -> Outcome:
        stats: dict[str, Any] = self._engine.stats()
        rows = stats["ledger"]
        return Outcome(
            produced=self._producer.produced,
            processed=self._tally.records,
            stored=sum(row["stored"] + row["already_stored"] for row in rows),
            imbalance=sum(abs(row["imbalance"]) for row in rows),
            settled=settled,
        )

    def _figures(self) -> dict[str, Any]:
        stats: dict[str, Any] = self._engine.stats()
        figures: dict[str, Any] = stats["pipelines"][0]
        return figures
