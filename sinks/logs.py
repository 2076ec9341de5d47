"""Log lines about batches, breakers and the log's files.

Every line written during a write carries its batch and worker.  Runs on the threads where things
happen: workers', requests' and the log's.  Keeps nothing but when the
log's failure was told, guarded by `_lock`.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager

import structlog

from pipeline.deadletter import DeadLetter
from pipeline.observer import Observer
from pipeline.record import Batch
from pipeline.runtime.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

_REQUESTS_NAMED = 5
_RECORDS_NAMED = 5
_ERROR_LENGTH = 500
_SAY_AGAIN_S = 60.0


class BatchLog(Observer):
    """Binds ids around a write, tells of attempts to come, and at DEBUG of those made."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._log_failed_at: float | None = None

    def writing(self, batch: Batch, worker: str) -> AbstractContextManager[object]:
        return structlog.contextvars.bound_contextvars(
            worker_id=worker, batch_id=batch.batch_id, sink=batch.sink
        )

    def write_finished(self, batch: Batch, seconds: float, error: BaseException | None) -> None:
        """The engine itself tells that a write failed, and why; nothing repeats it."""
        if logger.isEnabledFor(logging.DEBUG):
            said = "batch stored" if error is None else "attempt failed"
            logger.debug(said, extra={**_about(batch), "seconds": round(seconds, 6)})

    def retry_scheduled(self, batch: Batch, delay_s: float, error: BaseException) -> None:
        logger.info(
            "batch waits for its next attempt",
            extra={**_about(batch), "delay_s": round(delay_s, 3)},
        )

    def records_dead_lettered(self, pipeline: str, letters: Sequence[DeadLetter]) -> None:
        """One line for all of them; each is in the admin with its payload."""
        if not letters:
            return
        reasons = Counter(letter.reason for letter in letters)
        logger.warning(
            "records put aside as dead letters",
            extra={
                "sink": pipeline,
                "records": len(letters),
                "reasons": dict(reasons),
                "record_ids": [letter.record_id for letter in letters[:_RECORDS_NAMED]],
                "error": letters[0].error[:_ERROR_LENGTH],
            },
        )

    def breaker_changed(self, pipeline: str, state: str, cause: str) -> None:
        about = {"sink": pipeline, "breaker": state, "cause": cause[:_ERROR_LENGTH]}
        if state == "open":
            logger.error("breaker opened: the sink's records wait in the log", extra=about)
        elif state == "half_open":
            logger.info("breaker half open: one batch tries the sink", extra=about)
        else:
            logger.warning("breaker closed: the sink takes records again", extra=about)

    def log_failed(self, error: str) -> None:
        """Each offer that is refused tells of the same trouble: said once a minute."""
        now = self._clock.monotonic()
        with self._lock:
            told = self._log_failed_at is not None and now - self._log_failed_at < _SAY_AGAIN_S
            if not told:
                self._log_failed_at = now
        if not told:
            logger.error(
                "the log could not be written: offers that ask for it are refused with 503",
                extra={"error": error[:_ERROR_LENGTH]},
            )

    def log_synced(self, frames: int, nbytes: int, seconds: float) -> None:
        if self._log_failed_at is None:  # looked at without the lock, as every sync comes here
            return
        with self._lock:
            told, self._log_failed_at = self._log_failed_at is not None, None
        if told:
            logger.warning("the log is written again")

    def log_adopted(self, log_id: str, records: int) -> None:
        logger.warning(
            "adopted the log of a process that ended: its records are delivered from here",
            extra={"log_id": log_id, "records": records},
        )


def _about(batch: Batch) -> dict[str, object]:
    requests = list(dict.fromkeys(part.request_id for part in batch.parts if part.request_id))
    about: dict[str, object] = {
        "batch_id": batch.batch_id,
        "sink": batch.sink,
        "records": batch.count,
        "attempt": batch.attempt,
        "reason": batch.reason,
        "requests": requests[:_REQUESTS_NAMED],
    }
    if len(requests) == 1:
        about["request_id"] = requests[0]
    return about
