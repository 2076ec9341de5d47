"""Owns: where records go in benchmarks of the engine alone: a store of known cost, that counts.

`_lock` guards the counts; writes run on worker threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from pipeline.errors import RetryableError
from pipeline.record import Batch
from pipeline.sink import Sink, Written


class Store(Sink):
    """Each write takes `write_s` and `record_s` for each record; one in `fails` fails first.

    A record's `timestamp_us` is when it was handed over, on this process's performance counter;
    how long it took from then until it was stored is kept for `latencies_ms`.
    """

    def __init__(self, *, write_s: float = 0.0, record_s: float = 0.0, fails: int = 0) -> None:
        self._write_s, self._record_s, self._fails = write_s, record_s, fails
        self._lock = threading.Lock()
        self._tried = 0
        self.stored = self.writes = 0
        self.latencies_ms: list[float] = []

    def write(self, batch: Batch) -> Written:
        return Written(stored=self.store([record.timestamp_us for record in batch.records]))

    def store(self, times_us: Sequence[int]) -> int:
        with self._lock:
            self._tried += 1
            failing = self._fails and self._tried % self._fails == 0
        if self._write_s:
            time.sleep(self._write_s + self._record_s * len(times_us))
        if failing:
            raise RetryableError("one write in a few fails here")
        now = now_us()
        with self._lock:
            self.writes += 1
            self.stored += len(times_us)
            self.latencies_ms += [(now - us) / 1000 for us in times_us]
        return len(times_us)


def now_us() -> int:
    return time.perf_counter_ns() // 1000


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]
