"""What one pipeline finds out by itself, if it is told to: the size of a batch, the writes at once.

Takes from each attempt what it says of the sink, and hands it to `BatchSize` and
`ConcurrencyLimit`.  Errors that are the records' doing say nothing; nor does what is sent to find
out whether a failing sink is well again.

Guarded by the pipeline's lock.
"""

from __future__ import annotations

from pipeline.batching.adaptive import BatchSize
from pipeline.delivery.concurrency import ConcurrencyLimit
from pipeline.delivery.deliver import Outcome
from pipeline.errors import PartialFailure, PermanentError, SinkFault
from pipeline.record import Batch
from pipeline.settings import PipelineSettings

# What closed a batch that shows how much there is to do; others were closed before their time.
TELLING = frozenset(("size", "bytes", "time"))


class Tuning:
    """See the module's text."""

    def __init__(self, settings: PipelineSettings) -> None:
        self._size: BatchSize | None = None
        self._writes: ConcurrencyLimit | None = None
        self._most = settings.max_workers
        self.configure(settings, now=0.0)

    def configure(self, settings: PipelineSettings, *, now: float) -> None:
        """Take on changed settings; what is still on keeps what it has found."""
        # A batch larger than one worker's part of the room would have all senders wait for it.
        room = int(settings.capacity_records * settings.high_watermark)
        adaptive = settings.adaptive.within(max(1, room // settings.max_workers))
        self._most = settings.max_workers
        if not adaptive.batch:
            self._size = None
        elif self._size is None:
            self._size = BatchSize(adaptive)
        else:
            self._size.configure(adaptive, now=now)
        if not adaptive.concurrency:
            self._writes = None
        elif self._writes is None:
            self._writes = ConcurrencyLimit(most=self._most)
        else:
            self._writes.configure(most=self._most)

    @property
    def batch_limit(self) -> int | None:
        """The count at which a batch closes; None: that of the settings."""
        return None if self._size is None else self._size.limit

    @property
    def write_limit(self) -> int:
        """How many batches may be with the sink at once."""
        return self._most if self._writes is None else self._writes.limit

    @property
    def limits_writes(self) -> bool:
        """Whether fewer may be with the sink than there may be workers."""
        return self._writes is not None

    def began(self, in_hand: int) -> None:
        """An attempt begins; with it workers hold so many batches."""
        if self._writes is not None:
            self._writes.began(in_hand)

    def attempted(self, batch: Batch, outcome: Outcome, now: float) -> None:
        """An attempt has ended; the breaker was closed when it began."""
        if outcome.error is None:
            if self._writes is not None:
                self._writes.answered(seconds=outcome.seconds, count=batch.count, now=now)
            if self._size is not None and self._is_telling(batch):
                self._size.flushed(
                    count=batch.count,
                    full=batch.reason == "size",
                    seconds=outcome.seconds,
                    now=now,
                )
        elif is_pressure(outcome):
            self.pressed(batch, outcome.seconds, now)

    def pressed(self, batch: Batch, seconds: float, now: float) -> None:
        """The sink did not take a batch, or not within its time, and the records are not why.

        Fewer writes at once are tried before smaller ones: the search for how many it takes would
        else make every batch small.
        """
        if self._writes is not None and self._writes.pushed_back(seconds=seconds, now=now):
            return
        if self._size is not None:
            self._size.failed(formed_s=_formed_s(batch), now=now)

    @staticmethod
    def _is_telling(batch: Batch) -> bool:
        return batch.redrive is None and batch.attempt == 1 and batch.reason in TELLING


def is_pressure(outcome: Outcome) -> bool:
    """Whether an attempt failed as one does that asks too much of the sink.

    Not when records are refused, when a table is missing, or when another write was why.
    """
    aside = isinstance(outcome.error, PermanentError | PartialFailure | SinkFault) or outcome.trip
    return outcome.error is not None and not (aside or outcome.bystander or outcome.inconclusive)


def _formed_s(batch: Batch) -> float:
    assert batch.first_attempt_s is not None, "an attempt was made"
    return batch.first_attempt_s
