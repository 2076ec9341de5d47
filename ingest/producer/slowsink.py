"""Owns: where the producer's logs go: a sink as slow as it is told to be.

Workers write; `_lock` guards what was processed.
"""

from __future__ import annotations

import threading

from pipeline.errors import RetryableError
from pipeline.record import Batch


class Tally:
    """What a sink has processed, counted by itself and not by the engine that feeds it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.records = 0
        self.batches = 0

    def add(self, records: int) -> None:
        with self._lock:
            self.records += records
            self.batches += 1


class SlowSink:
    """Takes `latency_s` for each batch, whatever its size, and forgets it."""

    def __init__(self, *, latency_s: float, tally: Tally) -> None:
        self._latency_s, self._tally = latency_s, tally
        self._aborted = threading.Event()

    def open(self) -> None:
        """Nothing to open."""

    def write(self, batch: Batch) -> None:
        if self._latency_s and self._aborted.wait(self._latency_s):
            raise RetryableError("the write was aborted")
        self._tally.add(len(batch.records))

    def abort(self) -> None:
        self._aborted.set()

    def close(self) -> None:
        """Nothing to close."""
