"""What an attempt tells batch size and concurrency, and which of them answers to a refusal."""

from __future__ import annotations

import pytest

from pipeline.batching.adaptive import AdaptiveSettings
from pipeline.delivery.deliver import Outcome
from pipeline.delivery.tuning import Tuning, is_pressure
from pipeline.errors import PartialFailure, PermanentError, RetryableError, SinkFault
from pipeline.record import Batch
from pipeline.settings import PipelineSettings


class Told:
    """A tuning that is told of attempts with full batches."""

    def __init__(self, *, batch: bool = True, concurrency: bool = True) -> None:
        adaptive = AdaptiveSettings(batch=batch, concurrency=concurrency)
        self.tuning = Tuning(PipelineSettings(adaptive=adaptive, max_workers=4))
        self.now = 1000.0

    def attempt(self, error: Exception | None = None, *, reason: str = "size") -> None:
        batch = Batch(number=1, log_id="log", sink="a", reason=reason, parts=[])
        batch.count = self.tuning.batch_limit or 100
        batch.attempt, batch.first_attempt_s = 1, self.now
        self.tuning.began(self.tuning.write_limit)
        self.now += 0.1
        outcome = Outcome(seconds=0.1, error=error, retry_in_s=1.0 if error else None)
        self.tuning.attempted(batch, outcome, self.now)


def test_fewer_writes_at_once_answer_to_a_refusal_before_smaller_batches_do() -> None:
    told = Told()
    while told.tuning.write_limit < 3:
        told.attempt()
    size = told.tuning.batch_limit
    told.attempt(RetryableError("busy"))
    told.attempt(RetryableError("busy"))
    assert (told.tuning.write_limit, told.tuning.batch_limit) == (1, size)
    told.attempt(RetryableError("busy"))
    assert size is not None
    assert told.tuning.batch_limit == int(size * 0.875)


def test_alone_the_size_answers() -> None:
    told = Told(concurrency=False)
    told.attempt(RetryableError("busy"))
    assert (told.tuning.write_limit, told.tuning.batch_limit) == (4, 87)


@pytest.mark.parametrize("reason", ["flush", "shutdown", "replay"])
def test_a_batch_that_was_closed_before_its_time_says_nothing_of_its_size(reason: str) -> None:
    told = Told()
    for _ in range(12):
        told.attempt(reason=reason)
    assert told.tuning.batch_limit == 100


@pytest.mark.parametrize(
    ("outcome", "pressure"),
    [
        (Outcome(seconds=1.0, error=RetryableError("busy"), retry_in_s=1.0), True),
        (Outcome(seconds=1.0, error=ConnectionResetError(), retry_in_s=1.0), True),
        (Outcome(seconds=1.0, error=TimeoutError(), failures={0: "x"}, drop_reason="age"), True),
        (Outcome(seconds=1.0), False),
        (Outcome(seconds=1.0, error=PermanentError("no"), split=True), False),
        (Outcome(seconds=1.0, error=PartialFailure({0: "no"}), failures={0: "no"}), False),
        (Outcome(seconds=1.0, error=SinkFault("no table"), retry_in_s=1.0), False),
        (Outcome(seconds=1.0, error=RetryableError("x"), retry_in_s=30.0, trip=True), False),
        (Outcome(seconds=1.0, error=RetryableError("x"), retry_in_s=0.0, bystander=True), False),
    ],
)
def test_which_failures_are_those_of_a_sink_that_is_asked_too_much(
    outcome: Outcome, pressure: bool
) -> None:
    assert is_pressure(outcome) is pressure


def test_a_batch_is_never_more_than_one_workers_part_of_the_room() -> None:
    """Else one batch fills while the others idle, and senders are refused."""
    adaptive = AdaptiveSettings(batch=True)
    settings = PipelineSettings(
        adaptive=adaptive, max_records=50, capacity_records=1_000, high_watermark=0.8, max_workers=4
    )
    tuning = Tuning(settings)
    for number in range(200):
        batch = Batch(number=number, log_id="log", sink="a", reason="size", parts=[])
        batch.count = tuning.batch_limit or 0
        batch.attempt, batch.first_attempt_s = 1, float(number)
        tuning.attempted(batch, Outcome(seconds=0.001), number + 0.5)
    assert tuning.batch_limit == 200
