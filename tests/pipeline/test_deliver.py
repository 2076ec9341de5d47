"""One attempt: the sink's answer or error becomes exactly one outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.delivery.breaker import Breaker, BreakerSettings
from pipeline.delivery.deliver import Outcome, deliver, report
from pipeline.delivery.retry import RetryPolicy
from pipeline.delivery.slot import Abandoned, SinkSlot
from pipeline.delivery.workers import Worker
from pipeline.errors import PartialFailure, PermanentError, RetryableError, SinkFault
from pipeline.record import Batch, Part
from pipeline.runtime.clock import FakeClock
from pipeline.runtime.signals import Signals
from pipeline.sink import Sink, Written
from tests.pipeline.support import ScriptedSink, Step, frame, records, share, weight


def batch_of(count: int) -> Batch:
    of = records(count)
    nbytes = weight(of)
    part = Part(frame=frame(of, share(of)), start=0, count=count, nbytes=nbytes, held_bytes=nbytes)
    batch = Batch(number=1, log_id="log", sink="a", reason="size", parts=[part])
    batch.attempt = 1
    return batch


def attempt(
    step: Step = None,
    *,
    count: int = 3,
    policy: RetryPolicy | None = None,
    sink: Sink | None = None,
    clock: FakeClock | None = None,
    signals: Signals | None = None,
    attempts: int = 1,
    first_attempt_s: float | None = None,
    worker: Worker | None = None,
    slot: SinkSlot | None = None,
    age_s: Callable[[float], float] | None = None,
) -> Outcome:
    batch = batch_of(count)
    batch.attempt, batch.first_attempt_s = attempts, first_attempt_s
    used = sink or ScriptedSink(step)
    return deliver(
        batch,
        slot=slot or SinkSlot(lambda: used),
        worker=worker or a_worker(),
        policy=policy or RetryPolicy(),
        clock=clock or FakeClock(),
        observer=signals or Signals(),
        age_s=age_s,
    )


def a_worker() -> Worker:
    return Worker("w", 0)


def fate(outcome: Outcome) -> str:
    """The one of the three that an outcome must be."""
    if outcome.retry_in_s is not None:
        assert not outcome.split
        assert not outcome.failures
        return "retry"
    return "split" if outcome.split else "settled"


@pytest.mark.parametrize(
    ("written", "already"),
    [
        (None, 0),
        (Written(stored=3), 0),
        (Written(stored=1, already_stored=2), 2),
        (Written(stored=0, already_stored=3), 3),
    ],
)
def test_a_write_that_returns_has_stored_all(written: Written | None, already: int) -> None:
    outcome = attempt(lambda batch: written)
    assert fate(outcome) == "settled"
    assert (outcome.error, outcome.failures, outcome.already_stored) == (None, {}, already)


@pytest.mark.parametrize("written", [(2, 0), (3, 1), (-1, 4), (4, -1)])
def test_a_sink_that_miscounts_is_at_fault_and_tried_again(written: tuple[int, int]) -> None:
    outcome = attempt(lambda batch: Written(stored=written[0], already_stored=written[1]))
    assert fate(outcome) == "retry"
    assert isinstance(outcome.error, SinkFault)
    assert "account for each record once" in str(outcome.error)


@pytest.mark.parametrize(
    "error",
    [
        RetryableError("busy"),
        SinkFault("no such table"),
        OSError("reset"),
        AssertionError("a bug in the sink"),
        SystemExit(1),
        KeyboardInterrupt(),
        MemoryError(),
    ],
)
def test_errors_that_are_not_about_records_are_tried_again(error: BaseException) -> None:
    outcome = attempt(error)
    assert fate(outcome) == "retry"
    assert outcome.error is error


def test_a_permanent_error_splits_a_batch_and_drops_a_single_record() -> None:
    assert fate(attempt(PermanentError("bad"), count=2)) == "split"
    single = attempt(PermanentError("bad"), count=1)
    assert fate(single) == "settled"
    assert (single.failures, single.drop_reason) == ({0: "PermanentError: bad"}, "permanent")


def test_a_partial_failure_settles_with_its_records_by_index() -> None:
    outcome = attempt(PartialFailure({1: "too long"}))
    assert fate(outcome) == "settled"
    assert (outcome.failures, outcome.drop_reason) == ({1: "too long"}, "permanent")
    assert fate(attempt(PartialFailure({}))) == "settled"


@pytest.mark.parametrize("failures", [{"x": "why"}, {None: "why"}, {0.0: "why"}, {0: 5}])
def test_a_partial_failure_that_names_no_records_is_a_mistake_of_its_author(failures: Any) -> None:
    with pytest.raises(TypeError, match="indexes"):
        PartialFailure(failures)


def test_an_error_that_breaks_its_promises_after_it_was_made_is_a_fault_of_the_sink() -> None:
    error = PartialFailure({0: "fine"})
    error.failures = {0.0: "changed"}  # type: ignore[dict-item]
    outcome = attempt(error)
    assert fate(outcome) == "retry"
    assert isinstance(outcome.error, SinkFault)


@pytest.mark.parametrize("index", [-1, 3])
def test_a_partial_failure_about_records_that_are_not_there_is_a_fault_of_the_sink(
    index: Any,
) -> None:
    signals = Signals()
    outcome = attempt(PartialFailure({0: "fine", index: "strange"}), signals=signals)
    assert fate(outcome) == "retry"
    assert isinstance(outcome.error, SinkFault)
    assert repr(index) in str(outcome.error)
    assert signals.attempts[0].error is outcome.error


def test_when_the_policy_gives_up_every_record_is_dropped_with_the_reason() -> None:
    outcome = attempt(OSError("reset"), policy=RetryPolicy(max_attempts=3), attempts=3)
    assert fate(outcome) == "settled"
    assert outcome.drop_reason == "attempts"
    assert outcome.failures == dict.fromkeys(range(3), "OSError: reset")


def test_the_age_counts_from_the_first_attempt() -> None:
    clock = FakeClock()
    policy = RetryPolicy(max_age_s=10)
    first = clock.monotonic()
    assert fate(attempt(OSError(), policy=policy, clock=clock)) == "retry"
    clock.advance(10)
    late = attempt(OSError(), policy=policy, clock=clock, first_attempt_s=first)
    assert (fate(late), late.drop_reason) == ("settled", "age")


def test_time_while_the_breaker_was_open_does_not_age_a_batch() -> None:
    clock = FakeClock()
    breaker = Breaker(BreakerSettings(consecutive=1), clock.monotonic())
    policy = RetryPolicy(base_s=0.1, cap_s=0.1, max_age_s=10)
    clock.advance(9)
    permit = breaker.permit(clock.monotonic())
    assert permit is not None
    breaker.failed(permit, clock.monotonic(), "down")
    clock.advance(3600)
    hourly: dict[str, Any] = {"policy": policy, "clock": clock, "age_s": breaker.closed_s}
    assert fate(attempt(OSError(), **hourly)) == "retry"
    breaker.reset(clock.monotonic())
    clock.advance(1)
    assert attempt(OSError(), **hourly).drop_reason == "age"


def test_a_write_cut_off_beside_a_hung_one_is_tried_again_at_once_and_does_not_count() -> None:
    """Even where its attempts are used up: the fault is another's."""
    slot = SinkSlot(lambda: sink)
    policy = RetryPolicy(max_attempts=1)

    def cut(batch: Batch) -> None:
        slot.abandon("w")
        raise OSError("socket closed")

    sink = ScriptedSink(always=cut)
    beside = attempt(slot=slot, policy=policy)
    assert (fate(beside), beside.retry_in_s, beside.bystander) == ("retry", 0.0, True)

    hung = a_worker()
    hung.cut_at = 1.0
    outcome = attempt(slot=slot, policy=policy, worker=hung)
    assert (outcome.bystander, outcome.drop_reason) == (False, "attempts")
    assert outcome.failures[0] == "Abandoned: OSError: socket closed"


def test_a_batch_that_was_given_to_another_worker_is_not_written() -> None:
    """Its worker hung before the write, was given up, and came back."""
    sink, worker = ScriptedSink(), a_worker()
    worker.disowned = True
    outcome = attempt(sink=sink, worker=worker)
    assert fate(outcome) == "retry"
    assert sink.batches == []


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome(seconds=1), "closed"),
        (Outcome(seconds=1, error=PermanentError("bad"), split=True), "closed"),
        (Outcome(seconds=1, error=PartialFailure({0: "bad"}), failures={0: "bad"}), "closed"),
        (Outcome(seconds=1, error=OSError("reset"), retry_in_s=1), "open"),
        (Outcome(seconds=1, error=SinkFault("no table"), retry_in_s=1), "open"),
        (Outcome(seconds=1, error=OSError("given up"), failures={0: "x"}), "open"),
        (Outcome(seconds=1, error=PermanentError("x"), split=True, inconclusive=True), "half_open"),
        (Outcome(seconds=1, error=Abandoned("beside"), retry_in_s=0, bystander=True), "half_open"),
    ],
)
def test_what_an_attempt_says_about_the_sink(outcome: Outcome, state: str) -> None:
    """Told of a probe: an answer closes, a failure opens, and a bystander says nothing."""
    breaker = Breaker(BreakerSettings(consecutive=1), 0.0)
    permit = breaker.permit(0.0)
    assert permit is not None
    breaker.failed(permit, 0.0, "down")
    probe = breaker.permit(30.0)
    assert probe is not None
    report(outcome, breaker=breaker, permit=probe, now=30.0)
    assert breaker.state == state
    if state == "open":
        assert breaker.cause == f"{type(outcome.error).__name__}: {outcome.error}"


def test_an_outcome_that_is_proof_enough_opens_the_breaker_alone() -> None:
    for trip, state in ((False, "closed"), (True, "open")):
        breaker = Breaker(BreakerSettings(), 0.0)
        permit = breaker.permit(0.0)
        assert permit is not None
        outcome = Outcome(seconds=1, error=SinkFault("too much"), retry_in_s=1, trip=trip)
        report(outcome, breaker=breaker, permit=permit, now=0.0)
        assert breaker.state == state


def test_the_breaker_hears_how_long_the_sink_asked_to_be_left_alone() -> None:
    breaker = Breaker(BreakerSettings(consecutive=1), 0.0)
    permit = breaker.permit(0.0)
    assert permit is not None
    error = RetryableError("busy", retry_after_s=90)
    report(Outcome(seconds=1, error=error, retry_in_s=90), breaker=breaker, permit=permit, now=0.0)
    assert breaker.retry_in_s(0.0) == 90


def test_a_sink_that_cannot_be_opened_is_tried_again() -> None:
    class Closed(ScriptedSink):
        def open(self) -> None:
            raise RetryableError("no route", retry_after_s=60)

    sink = Closed()
    outcome = attempt(sink=sink)
    assert (fate(outcome), outcome.retry_in_s) == ("retry", 60)
    assert sink.batches == []


def test_the_observer_is_told_of_the_write_without_the_time_of_opening() -> None:
    clock, signals = FakeClock(), Signals()

    class Slow(ScriptedSink):
        def open(self) -> None:
            clock.advance(100)

        def write(self, batch: Batch) -> None:
            clock.advance(2.5)

    outcome = attempt(sink=Slow(), clock=clock, signals=signals)
    assert outcome.seconds == 2.5
    assert signals.attempts[0].error is None
