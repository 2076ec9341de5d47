"""Log lines about batches: every line written during a write carries its batch and worker.

Runs on worker threads, once per batch; keeps nothing.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager

import structlog

from pipeline.observer import Observer
from pipeline.record import Batch

logger = logging.getLogger(__name__)

_REQUESTS_NAMED = 5


class BatchLog(Observer):
    """Binds ids around a write, tells of attempts to come, and at DEBUG of those made."""

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
