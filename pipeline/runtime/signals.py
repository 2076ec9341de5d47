"""Signals for tests: what an engine did, remembered, and waited for instead of slept for.

Ships with the library like `FakeClock`.  Told by workers and request threads, asked by a test;
one condition guards what is remembered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from pipeline.delivery.workers import WorkerRun
from pipeline.observer import Observer
from pipeline.record import Batch, Record

_One = TypeVar("_One")


class Closed(NamedTuple):
    """A batch was formed."""

    sink: str
    number: int
    reason: str
    records: int


class Attempt(NamedTuple):
    """A write ended."""

    sink: str
    number: int
    attempt: int
    records: int
    error: BaseException | None


class Retry(NamedTuple):
    """A batch waits for its next attempt."""

    sink: str
    number: int
    attempt: int
    delay_s: float


class Settled(NamedTuple):
    """All records of a batch have ended."""

    sink: str
    number: int
    stored: int
    already_stored: int


class Dropped(NamedTuple):
    """Records ended without being stored; `pipeline` is the sink's name."""

    pipeline: str
    tenant: str
    messages: tuple[str, ...]
    reason: str
    error: str


class Scaled(NamedTuple):
    """The autoscaler changed the number of workers; `pipeline` is the sink's name."""

    pipeline: str
    workers: int
    step: int
    why: str


class Signals(Observer):
    """Register with `engine.observe`; then wait for what should come with `wait_for`.

    Told by the engine's threads, asked from any; its lists only grow.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.closed: list[Closed] = []
        self.attempts: list[Attempt] = []
        self.retries: list[Retry] = []
        self.settled: list[Settled] = []
        self.dropped: list[Dropped] = []
        self.scalings: list[Scaled] = []
        self.ended: list[WorkerRun] = []

    @property
    def stored(self) -> int:
        """Records stored by all sinks together."""
        return sum(one.stored for one in self.settled)

    def wait_for(self, what: Callable[[Signals], bool], *, timeout_s: float = 30.0) -> None:
        """Wait until `what(self)` holds; raises TimeoutError with all that came instead."""
        with self._changed:
            if not self._changed.wait_for(lambda: what(self), timeout_s):
                raise TimeoutError(f"waited {timeout_s} s in vain; what came: {vars(self)}")

    def batch_closed(self, batch: Batch) -> None:
        self._add(self.closed, Closed(batch.sink, batch.number, batch.reason, batch.count))

    def write_finished(self, batch: Batch, seconds: float, error: BaseException | None) -> None:
        one = Attempt(batch.sink, batch.number, batch.attempt, batch.count, error)
        self._add(self.attempts, one)

    def batch_settled(self, batch: Batch, stored: int, already_stored: int, age_s: float) -> None:
        self._add(self.settled, Settled(batch.sink, batch.number, stored, already_stored))

    def retry_scheduled(self, batch: Batch, delay_s: float, error: BaseException) -> None:
        self._add(self.retries, Retry(batch.sink, batch.number, batch.attempt, delay_s))

    def records_dropped(
        self, pipeline: str, tenant: str, records: Iterable[Record], reason: str, error: str
    ) -> None:
        messages = tuple(record.message for record in records)
        self._add(self.dropped, Dropped(pipeline, tenant, messages, reason, error))

    def scaled(self, pipeline: str, workers: int, step: int, why: str) -> None:
        self._add(self.scalings, Scaled(pipeline, workers, step, why))

    def worker_ended(self, run: WorkerRun) -> None:
        self._add(self.ended, run)

    def _add(self, to: list[_One], one: _One) -> None:
        with self._changed:
            to.append(one)
            self._changed.notify_all()
