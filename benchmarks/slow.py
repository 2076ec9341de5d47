"""A sink that takes no more than it is told to: what a memory benchmark overloads."""

from __future__ import annotations

import threading
import time
from typing import ClassVar

from pipeline.record import Batch
from pipeline.sink import Written
from sinks.base import BaseSink
from sinks.options import SinkOptions

_SLACK_S = 0.1


class SlowOptions(SinkOptions, frozen=True, kw_only=True):
    records_per_s: int = 10_000


class SlowSink(BaseSink[SlowOptions]):
    """Takes `records_per_s` in all, however many workers write; keeps none. `_turn` is held while
    a batch takes its time, which is the point."""

    Options: ClassVar[type[SinkOptions]] = SlowOptions
    label = "Slow"
    description = "Takes a given number of records a second. For benchmarks."

    def __init__(self, options: SlowOptions, *, name: str = "") -> None:
        super().__init__(options, name=name)
        self._turn = threading.Lock()
        self._due = 0.0

    def write(self, batch: Batch) -> Written:
        with self._turn:
            # By a schedule: on a busy machine each sleep is a little too long, and its rate is
            # what others are measured against.
            now = time.monotonic()
            self._due = max(self._due, now - _SLACK_S) + batch.count / self.options.records_per_s
            time.sleep(max(0.0, self._due - now))
        return Written(stored=batch.count)
