"""What every sink is: typed options, flags that say what it can do, checks, and four calls.

A sink is made without touching anything outside itself; `open` connects, `write` stores a batch
and returns when it is stored, `abort` makes a hanging `write` fail soon, `close` lets go.  `open`
and `close` are idempotent.  `write` is called from several worker threads at once (unless
`supports_concurrent_writes` is false), `abort` from any thread.  Errors are those of
`pipeline.errors`; `probe` answers the operator's "does it work?" without leaving records behind.

The contract that every backend passes is in tests/sinks/contract.py.
"""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from pipeline import errors, record, sink
from sinks.options import NoOptions, Secret, SinkOptions

OptionsT = TypeVar("OptionsT", bound=SinkOptions)


class BaseSink(Generic[OptionsT]):
    """Base of all sinks.  Subclasses set `Options` and `label`, and implement `write`."""

    Options: ClassVar[type[SinkOptions]] = NoOptions
    label: ClassVar[str] = ""
    description: ClassVar[str] = ""

    supports_probe: bool = False
    """`probe` proves that a write would work, and leaves nothing behind."""
    supports_concurrent_writes: bool = True
    """Several workers may write at once; otherwise the pipeline has one worker."""
    supports_exactly_once: bool = False
    """A batch sent twice (after a lost answer, or a crash) is stored once."""
    supports_partial_failure: bool = False
    """One bad record costs one record, without help of the engine."""
    max_batch_records: int | None = None
    """The most records a batch should have; larger ones are slower, not refused."""

    def __init__(self, options: OptionsT, *, name: str = "") -> None:
        self.options = options
        self.name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def checks(self) -> list[str]:
        """What is wrong or risky in these options, found without any I/O on the far side."""
        return []

    def secret_texts(self) -> list[str]:
        """Every text that must not appear in an error or a log line."""
        values = (getattr(self.options, name) for name in self.options.__struct_fields__)
        return [value.reveal() for value in values if isinstance(value, Secret) and value]

    def open(self) -> None:
        """Get ready to write; called again after a failure, and harmless when already open."""

    def write(self, batch: record.Batch) -> sink.Written | None:
        """Store every record of the batch, or raise."""
        raise NotImplementedError

    def probe(self, batch: record.Batch) -> str:
        """Try a marked record without keeping it; returns a sentence, raises a SinkError."""
        raise errors.SinkFault(f"{self.label or type(self).__name__} can only be opened")

    def forget(self, log_id: str) -> None:
        """That log is finished: no batch of it comes again.  Called from a worker's thread."""

    def abort(self) -> None:
        """Make writes in flight fail soon."""

    def close(self) -> None:
        """Let go of files and connections."""
