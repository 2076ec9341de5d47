"""What an engine tells those who watch it: the seam for metrics, logs and traces.

Methods are called on the thread where the thing happened, with no lock held; they must be quick
and must not raise (an exception is logged and swallowed).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from pipeline.deadletter import DeadLetter
from pipeline.delivery.workers import WorkerRun
from pipeline.record import Batch, Record

log = logging.getLogger(__name__)


class Observer:
    """Derive from it and override what is of interest.

    Its methods are called on the engine's threads and those that offer, several at a time and with
    no lock held; they must be quick.  What they raise is logged.
    """

    def batch_closed(self, batch: Batch) -> None:
        """A batch was formed; `batch.reason` says what closed it."""

    def writing(self, batch: Batch, worker: str) -> AbstractContextManager[object]:
        """Entered around one attempt; an exception of the sink passes through it."""
        return nullcontext()

    def write_finished(self, batch: Batch, seconds: float, error: BaseException | None) -> None:
        """An attempt ended after `seconds`."""

    def batch_settled(self, batch: Batch, stored: int, already_stored: int, age_s: float) -> None:
        """All records of a batch have ended; the oldest had arrived `age_s` seconds before."""

    def retry_scheduled(self, batch: Batch, delay_s: float, error: BaseException) -> None:
        """A batch waits `delay_s` for its next attempt."""

    def records_dropped(
        self, pipeline: str, tenant: str, records: Iterable[Record], reason: str, error: str
    ) -> None:
        """Records ended without being stored."""

    def records_dead_lettered(self, pipeline: str, letters: Sequence[DeadLetter]) -> None:
        """Records that can never be stored are kept as dead letters."""

    def breaker_changed(self, pipeline: str, state: str, cause: str) -> None:
        """A breaker is closed, open or half_open from now on."""

    def scaled(self, pipeline: str, workers: int, step: int, why: str) -> None:
        """The autoscaler added a worker (`step` 1) or told one to end (-1): so many stay."""

    def log_synced(self, frames: int, nbytes: int, seconds: float) -> None:
        """So many frames were written and synced together, in so many seconds."""

    def log_failed(self, error: str) -> None:
        """The log's files cannot be written any more."""

    def log_adopted(self, log_id: str, records: int) -> None:
        """The log of a process that is gone was taken over, with so many records to deliver."""

    def log_finished(self, log_id: str, figures: Mapping[str, Any]) -> None:
        """An adopted log is delivered; its last figures, as in `stats()["log"]["adopted"]`."""

    def worker_ended(self, run: WorkerRun) -> None:
        """A worker thread has ended."""


class Observers(Observer):
    """Passes everything on to any number of observers."""

    def __init__(self) -> None:
        self._observers: tuple[Observer, ...] = ()

    def add(self, observer: Observer) -> None:
        self._observers = (*self._observers, observer)

    def _each(self, method: str, *args: object) -> None:
        for observer in self._observers:
            try:
                getattr(observer, method)(*args)
            except Exception:
                log.exception("observer %r failed in %s", observer, method)

    def batch_closed(self, batch: Batch) -> None:
        self._each("batch_closed", batch)

    def writing(self, batch: Batch, worker: str) -> AbstractContextManager[object]:
        if not self._observers:
            return nullcontext()
        return _Entered(self._observers, batch, worker)

    def write_finished(self, batch: Batch, seconds: float, error: BaseException | None) -> None:
        self._each("write_finished", batch, seconds, error)

    def batch_settled(self, batch: Batch, stored: int, already_stored: int, age_s: float) -> None:
        self._each("batch_settled", batch, stored, already_stored, age_s)

    def retry_scheduled(self, batch: Batch, delay_s: float, error: BaseException) -> None:
        self._each("retry_scheduled", batch, delay_s, error)

    def records_dropped(
        self, pipeline: str, tenant: str, records: Iterable[Record], reason: str, error: str
    ) -> None:
        self._each("records_dropped", pipeline, tenant, list(records), reason, error)

    def records_dead_lettered(self, pipeline: str, letters: Sequence[DeadLetter]) -> None:
        self._each("records_dead_lettered", pipeline, letters)

    def breaker_changed(self, pipeline: str, state: str, cause: str) -> None:
        self._each("breaker_changed", pipeline, state, cause)

    def scaled(self, pipeline: str, workers: int, step: int, why: str) -> None:
        self._each("scaled", pipeline, workers, step, why)

    def log_synced(self, frames: int, nbytes: int, seconds: float) -> None:
        self._each("log_synced", frames, nbytes, seconds)

    def log_failed(self, error: str) -> None:
        self._each("log_failed", error)

    def log_adopted(self, log_id: str, records: int) -> None:
        self._each("log_adopted", log_id, records)

    def log_finished(self, log_id: str, figures: Mapping[str, Any]) -> None:
        self._each("log_finished", log_id, figures)

    def worker_ended(self, run: WorkerRun) -> None:
        self._each("worker_ended", run)


class _Entered:
    """Enters each observer's context; none of them can stop the write or hide its error."""

    def __init__(self, observers: tuple[Observer, ...], batch: Batch, worker: str) -> None:
        self._args = (batch, worker)
        self._observers = observers
        self._open: list[AbstractContextManager[object]] = []

    def __enter__(self) -> None:
        for observer in self._observers:
            try:
                context = observer.writing(*self._args)
                context.__enter__()
                self._open.append(context)
            except Exception:
                log.exception("observer %r failed in writing", observer)

    def __exit__(self, *error: object) -> None:
        for context in reversed(self._open):
            try:
                context.__exit__(*error)  # type: ignore[arg-type]
            except Exception as raised:
                if raised is not error[1]:
                    log.exception("an observer failed in writing")
