"""What the engine asks of a sink."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol

from pipeline.record import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The answer of a sink that knows that some records were there already.

    `stored` and `already_stored` are numbers of records and add up to the batch's.  Never changed.
    """

    stored: int
    already_stored: int = 0


class Sink(Protocol):
    """Where batches go; derived from, what is not overridden does nothing.

    `open` and `close` are idempotent and never called at once; `write` is called from several
    worker threads at the same time.  `open` and `write` raise `SinkError`s; any other exception
    counts as retryable.  Nobody holds a lock while a sink is called.
    """

    # An explicit `return` tells type checkers that a method need not be overridden.

    def open(self) -> None:
        """Connect: before the first write, on a worker's thread, again until it succeeds."""
        return

    @abstractmethod
    def write(self, batch: Batch) -> Written | None:
        """Store a batch; to return is to say that all of its records are stored.

        Raises RetryableError, PermanentError, PartialFailure or SinkFault.  After an error, an
        abort or a crash a batch may come again, with the same `batch.batch_id`, or halved, with
        others; the records' ids stay the same.
        """

    def abort(self) -> None:
        """Make the writes that hang fail soon; from any thread, while they run."""
        return

    def close(self) -> None:
        """Let go of everything; no write runs, nor will."""
        return
