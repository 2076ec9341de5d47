"""A sink that keeps batches in memory: the fake that tests of everything above a sink use.

    sink = MemorySink(MemoryOptions())
    sink.fail_next(RetryableError("down"))
    …
    assert sink.join(1_000)
    sink.records            # every stored record, in the order of writing

A sink made from a row is found by that row's name: `MemorySink.named("copy")`.
`_changed` (a condition) guards everything that is kept; `write` waits on it while held.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Annotated, ClassVar
from weakref import WeakValueDictionary

from msgspec import Meta

from pipeline.errors import RetryableError
from pipeline.record import Batch, Record
from pipeline.sink import Written
from sinks.base import BaseSink
from sinks.options import SinkOptions


class MemoryOptions(SinkOptions, frozen=True, kw_only=True):
    keep_records: Annotated[
        int, Meta(ge=1, le=10_000_000, description="Records kept; the oldest batches go first.")
    ] = 100_000


class MemorySink(BaseSink[MemoryOptions]):
    """Keeps what it is given and can be told to fail or to hang."""

    Options: ClassVar[type[SinkOptions]] = MemoryOptions
    label = "Memory"
    description = "Keeps the latest records in the server's memory; for trials and tests."
    supports_probe = True
    supports_exactly_once = True

    _named: ClassVar[WeakValueDictionary[str, MemorySink]] = WeakValueDictionary()

    def __init__(self, options: MemoryOptions | None = None, *, name: str = "") -> None:
        super().__init__(options or MemoryOptions(), name=name)
        self._changed = threading.Condition()
        self._batches: deque[Batch] = deque()
        self._stored = 0
        self._kept = 0
        self._seen: set[tuple[str, int]] = set()
        self._failures: deque[Exception] = deque()
        self._held = False
        self._aborts = 0
        self.opened = 0
        self.closed = 0
        self.writing = 0

    @classmethod
    def named(cls, name: str) -> MemorySink:
        """The latest opened sink of that name.  Raises KeyError."""
        return cls._named[name]

    # --- the sink --------------------------------------------------------------------------

    def open(self) -> None:
        with self._changed:
            self.opened += 1
        if self.name:
            self._named[self.name] = self

    def write(self, batch: Batch) -> Written:
        with self._changed:
            self.writing += 1
            self._changed.notify_all()
            try:
                aborts = self._aborts
                while self._held and aborts == self._aborts:
                    self._changed.wait()
                if aborts != self._aborts:
                    raise RetryableError("aborted")
                if self._failures:
                    raise self._failures.popleft()
                return self._keep(batch)
            finally:
                self.writing -= 1
                self._changed.notify_all()

    def probe(self, batch: Batch) -> str:
        return f"{self._kept} records are kept; the marked one was not added."

    def abort(self) -> None:
        with self._changed:
            self._aborts += 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self.closed += 1

    def _keep(self, batch: Batch) -> Written:
        key = (batch.log_id, batch.number)
        if key in self._seen:
            return Written(stored=0, already_stored=batch.count)
        self._seen.add(key)
        self._batches.append(batch)
        self._stored += batch.count
        self._kept += batch.count
        while self._kept > self.options.keep_records and len(self._batches) > 1:
            oldest = self._batches.popleft()
            self._seen.discard((oldest.log_id, oldest.number))
            self._kept -= oldest.count
        return Written(stored=batch.count)

    # --- for tests -------------------------------------------------------------------------

    def fail_next(self, *errors: Exception) -> None:
        """Each of the next writes raises one of these."""
        with self._changed:
            self._failures.extend(errors)

    def hold(self) -> None:
        """Writes hang until `release` or `abort`."""
        with self._changed:
            self._held = True

    def release(self) -> None:
        """Let writes go on."""
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def join(self, count: int, timeout_s: float = 30.0) -> bool:
        """Wait until at least `count` records were stored since the sink was made."""
        with self._changed:
            return self._changed.wait_for(lambda: self._stored >= count, timeout_s)

    def join_writing(self, count: int = 1, timeout_s: float = 30.0) -> bool:
        """Wait until `count` writes are in flight."""
        with self._changed:
            return self._changed.wait_for(lambda: self.writing >= count, timeout_s)

    @property
    def stored(self) -> int:
        """Records stored since the sink was made."""
        with self._changed:
            return self._stored

    @property
    def batches(self) -> list[Batch]:
        """The batches that are kept."""
        with self._changed:
            return list(self._batches)

    @property
    def records(self) -> list[Record]:
        """The records that are kept, in the order of writing."""
        return [record for batch in self.batches for record in batch.records]
