"""One attempt to deliver one batch: the sink's answer or error becomes an Outcome.

Runs on a worker thread; holds no lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.delivery.retry import RetryPolicy
from pipeline.delivery.slot import SinkSlot
from pipeline.errors import PartialFailure, PermanentError
from pipeline.observer import Observer
from pipeline.record import Batch
from pipeline.runtime.clock import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an attempt: exactly one of settled, `retry_in_s` and `split`.

    `failures` maps an index in `batch.records` to why that record can never be stored, under
    `drop_reason`; every other record of a settled batch is stored.
    """

    seconds: float
    error: BaseException | None = None
    already_stored: int = 0
    failures: dict[int, str] = field(default_factory=dict)
    drop_reason: str = "permanent"
    retry_in_s: float | None = None
    split: bool = False


def deliver(
    batch: Batch,
    *,
    slot: SinkSlot,
    worker: str,
    policy: RetryPolicy,
    first_attempt_s: float,
    clock: Clock,
    observer: Observer,
) -> Outcome:
    """Write a batch once and say what follows."""
    begun = clock.monotonic()
    try:
        with observer.writing(batch, worker), slot.use() as sink:
            begun = clock.monotonic()
            written = sink.write(batch)
    except Exception as error:
        now = clock.monotonic()
        observer.write_finished(batch, now - begun, error)
        return _failed(batch, error, policy, now - begun, now - first_attempt_s)
    seconds = clock.monotonic() - begun
    observer.write_finished(batch, seconds, None)
    return Outcome(seconds=seconds, already_stored=written.already_stored if written else 0)


def _failed(
    batch: Batch, error: Exception, policy: RetryPolicy, seconds: float, elapsed_s: float
) -> Outcome:
    if isinstance(error, PartialFailure):
        return Outcome(seconds=seconds, error=error, failures=error.failures)
    if isinstance(error, PermanentError) and batch.count > 1:
        # One record is at fault and the sink does not say which: halve until it stands alone.
        return Outcome(seconds=seconds, error=error, split=True)
    decision = policy.decide(error, attempt=batch.attempt, elapsed_s=elapsed_s)
    if decision.retry:
        return Outcome(seconds=seconds, error=error, retry_in_s=decision.delay_s)
    return Outcome(
        seconds=seconds,
        error=error,
        failures=dict.fromkeys(range(batch.count), f"{type(error).__name__}: {error}"),
        drop_reason=decision.reason,
    )
