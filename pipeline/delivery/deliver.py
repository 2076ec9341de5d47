"""One attempt to deliver one batch: the sink's answer or error becomes an Outcome.

Runs on a worker thread; holds no lock, but `age_s` may take one for a moment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.delivery.breaker import Breaker, Permit
from pipeline.delivery.retry import RetryPolicy
from pipeline.delivery.slot import Abandoned, SinkSlot
from pipeline.delivery.workers import Worker
from pipeline.errors import PartialFailure, PermanentError, RetryableError, SinkFault
from pipeline.observer import Observer
from pipeline.record import Batch
from pipeline.runtime.clock import Clock
from pipeline.sink import Written


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an attempt: exactly one of settled, `retry_in_s` and `split`.

    `failures` maps an index in `batch.records` to why that record ends unstored, for the
    `drop_reason` permanent (the sink refused it), attempts or age (it was given up); every other
    record of a settled batch is stored.  `trip` says that this alone shows the sink to be at
    fault.  A `bystander` was cut off because another write into the same sink object hung: it is
    tried again at once, and the attempt is not to be counted, neither for the batch nor against
    the sink.  An `inconclusive` answer is one, but not of a sink that is known to be well.
    """

    seconds: float
    error: BaseException | None = None
    already_stored: int = 0
    failures: dict[int, str] = field(default_factory=dict)
    drop_reason: str = "permanent"
    retry_in_s: float | None = None
    split: bool = False
    trip: bool = False
    bystander: bool = False
    inconclusive: bool = False


def deliver(
    batch: Batch,
    *,
    slot: SinkSlot,
    worker: Worker,
    policy: RetryPolicy,
    clock: Clock,
    observer: Observer,
    age_s: Callable[[float], float] | None = None,
) -> Outcome:
    """Write a batch once and say what follows.

    `age_s` tells how old the batch is at a monotonic time, not counting the time that the breaker
    was open; without it, the time since its first attempt is taken.
    """
    begun = clock.monotonic()
    try:
        with observer.writing(batch, worker.name), slot.use(worker.name) as sink:
            if worker.disowned:
                raise Abandoned("the batch was given to another worker")
            begun = clock.monotonic()
            written = sink.write(batch)
            _check(batch, written)
    except BaseException as raised:  # a worker that ended here would take its batch along
        now, error = clock.monotonic(), _believable(batch, raised)
        observer.write_finished(batch, now - begun, error)
        if isinstance(error, Abandoned) and not worker.late:
            return Outcome(seconds=now - begun, error=error, retry_in_s=0.0, bystander=True)
        return _failed(batch, error, policy, now - begun, lambda: _age_s(batch, begun, now, age_s))
    seconds = clock.monotonic() - begun
    observer.write_finished(batch, seconds, None)
    return Outcome(seconds=seconds, already_stored=written.already_stored if written else 0)


def report(outcome: Outcome, *, breaker: Breaker, permit: Permit, now: float) -> None:
    """Tell the breaker what an attempt says about the sink; under the lock that guards it."""
    error = outcome.error
    if outcome.bystander or outcome.inconclusive:
        breaker.ignored(permit)
    elif not outcome.trip and (error is None or isinstance(error, PermanentError | PartialFailure)):
        breaker.succeeded(permit, now)
    else:
        asked = error.retry_after_s if isinstance(error, RetryableError) else None
        cause = f"{type(error).__name__}: {error}"
        breaker.failed(permit, now, cause, retry_after_s=asked, trip=outcome.trip)


def _age_s(batch: Batch, begun: float, now: float, age_s: Callable[[float], float] | None) -> float:
    if age_s is not None:
        return age_s(now)
    return now - (begun if batch.first_attempt_s is None else batch.first_attempt_s)


def _check(batch: Batch, written: Written | None) -> None:
    """A sink that accounts for more or fewer records than it was given is not to be believed."""
    if written is None:
        return
    stored, already = written.stored, written.already_stored
    if stored < 0 or already < 0 or stored + already != batch.count:
        raise SinkFault(
            f"the sink says that it stored {stored} and found {already} of {batch.count} records: "
            "its write must account for each record once"
        )


def _believable(batch: Batch, error: BaseException) -> BaseException:
    """The error, unless it is one about records that the batch does not have."""
    known = range(batch.count)
    if isinstance(error, PartialFailure) and (
        strange := [repr(i) for i in error.failures if type(i) is not int or i not in known][:5]
    ):
        return SinkFault(
            f"the sink refused records {', '.join(strange)} of a batch whose records are 0 to "
            f"{batch.count - 1}: nobody can tell which ones it stored"
        )
    return error


def _failed(
    batch: Batch,
    error: BaseException,
    policy: RetryPolicy,
    seconds: float,
    age_s: Callable[[], float],
) -> Outcome:
    if isinstance(error, PartialFailure):
        already = min(max(error.already_stored, 0), batch.count - len(error.failures))
        return Outcome(
            seconds=seconds, error=error, failures=error.failures, already_stored=already
        )
    if isinstance(error, PermanentError) and batch.count > 1:
        # One record is at fault and the sink does not say which: halve until it stands alone.
        return Outcome(seconds=seconds, error=error, split=True)
    decision = policy.decide(error, attempt=batch.attempt, age_s=age_s())
    if decision.retry:
        return Outcome(seconds=seconds, error=error, retry_in_s=decision.delay_s)
    return Outcome(
        seconds=seconds,
        error=error,
        failures=dict.fromkeys(range(batch.count), f"{type(error).__name__}: {error}"),
        drop_reason=decision.reason,
    )
