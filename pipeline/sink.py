"""What the engine asks of a sink."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipeline.record import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The answer of a sink that knows that some records were there already."""

    stored: int
    already_stored: int = 0


class Sink(Protocol):
    """Where batches go.

    `open` and `close` are idempotent and never called at once; `write` is called from several
    worker threads at the same time and returns only when the records are stored.  `abort` is
    called from any thread to make a hanging `write` fail soon.  Errors are those of
    `pipeline.errors`; any other exception counts as retryable.
    """

    def open(self) -> None: ...

    def write(self, batch: Batch) -> Written | None: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...
