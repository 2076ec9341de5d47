"""Poison or a fault of the sink: when refusals are held rather than dead-lettered."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.delivery.deliver import Outcome
from pipeline.delivery.poison import HOLD_CAP_S, HOLD_S, PoisonWindow, TooManyRefused
from pipeline.errors import PartialFailure, PermanentError


class Sink:
    """Attempts at a sink, seen through one window."""

    def __init__(self, limit: float = 0.05) -> None:
        self.window = PoisonWindow(limit)
        self.now = 1000.0

    def writes(self, count: int, *, refused: int = 0, attempt: int = 1, **how: Any) -> Outcome:
        failures = {index: f"reason {index}" for index in range(refused)}
        error = PartialFailure(failures) if failures else None
        outcome = Outcome(**{"seconds": 1.0, "error": error, "failures": failures} | how)
        return self.window.judge(outcome, count=count, attempt=attempt, now=self.now)


def held(outcome: Outcome) -> bool:
    """Whether nothing of it is given up and the breaker trips for it."""
    if not isinstance(outcome.error, TooManyRefused):
        assert not outcome.trip
        return False
    assert outcome.trip
    assert outcome.retry_in_s is not None
    assert outcome.failures == {}
    return True


def test_a_batch_of_which_too_much_is_refused_is_held_and_says_why() -> None:
    outcome = Sink().writes(1000, refused=51)
    assert held(outcome)
    text = str(outcome.error)
    assert "51 of the 1000 records" in text
    assert "5.1%; poison_limit is 5.0%" in text
    assert "The last reason: reason 50" in text


def test_a_share_up_to_the_limit_is_poison_and_passes() -> None:
    outcome = Sink().writes(1000, refused=50)
    assert not held(outcome)
    assert len(outcome.failures) == 50


def test_few_records_prove_nothing() -> None:
    """Not even when all are refused: someone sends a handful of bad records."""
    sink = Sink()
    assert not held(sink.writes(199, refused=199))
    assert held(sink.writes(1, refused=1))


def test_few_refusals_prove_nothing() -> None:
    sink = Sink()
    assert not held(sink.writes(200, refused=19))
    assert held(sink.writes(1, refused=1))


def test_one_bad_record_alone_never_counts() -> None:
    sink = Sink()
    for _ in range(100):
        assert not held(sink.writes(1, refused=1))
        sink.now += 60


def test_refusals_are_counted_over_batches_and_leave_with_the_window() -> None:
    sink = Sink()
    for _ in range(4):
        assert not held(sink.writes(50, refused=4))  # 16 of 200
    sink.now += 59
    assert held(sink.writes(50, refused=4))  # 20 of 250
    later = Sink()
    for _ in range(4):
        later.writes(50, refused=4)
    later.now += 60
    assert not held(later.writes(50, refused=4))


def test_records_that_are_stored_dilute_the_poison() -> None:
    sink = Sink()
    for _ in range(100):
        assert not held(sink.writes(5000, refused=5))
        assert not held(sink.writes(1, refused=1))


@pytest.mark.parametrize(
    "how",
    [
        {"error": OSError("down"), "failures": {}, "retry_in_s": 1.0},
        {"error": PermanentError("one of them"), "failures": {}, "split": True},
        {"error": OSError("given up"), "drop_reason": "attempts"},
        {"error": OSError("given up"), "drop_reason": "age"},
    ],
)
def test_what_is_no_refusal_of_records_is_passed_on_and_not_counted(how: dict[str, Any]) -> None:
    sink = Sink()
    outcome = sink.writes(1000, refused=1000, **how)
    assert outcome.error is how["error"]
    assert not held(outcome)
    assert not held(sink.writes(100, refused=100))


def test_while_the_sink_is_suspected_small_batches_are_held_too() -> None:
    """A probe of one record that is refused dead-letters nothing, however long the outage."""
    sink = Sink()
    assert held(sink.writes(5000, refused=5000))
    for _ in range(50):
        sink.now += 30
        assert held(sink.writes(1, refused=1))
    sink.now += 3600  # the sink asked for an hour
    assert held(sink.writes(1, refused=1))


def test_a_batch_without_refusals_passes_whatever_is_suspected() -> None:
    sink = Sink()
    assert held(sink.writes(1000, refused=1000))
    outcome = sink.writes(1)
    assert (outcome.error, outcome.retry_in_s) == (None, None)


def test_a_batch_that_is_taken_apart_says_nothing_of_a_sink_that_is_suspected() -> None:
    """Or the probe that is refused as a whole would close the breaker, and its parts flow on."""
    sink = Sink()
    apart: dict[str, Any] = {"error": PermanentError("one of them"), "split": True}
    assert not sink.writes(1000, **apart).inconclusive
    assert held(sink.writes(1000, refused=1000))
    outcome = sink.writes(1000, **apart)
    assert (outcome.split, outcome.inconclusive, outcome.trip) == (True, True, False)
    sink.writes(30_000)
    assert not sink.writes(1000, **apart).inconclusive


def test_a_clean_batch_is_not_held_for_the_refusals_before_it() -> None:
    """Even where it is the one that makes the count large enough to speak."""
    sink = Sink()
    assert not held(sink.writes(100, refused=100))
    assert sink.writes(150).error is None


def test_a_batch_with_little_poison_passes_while_the_sink_is_suspected() -> None:
    """The sink was repaired, and the window still remembers."""
    sink = Sink()
    assert held(sink.writes(5000, refused=5000))
    assert not held(sink.writes(1000, refused=1))
    assert held(sink.writes(10, refused=1))


def test_the_suspicion_ends_when_the_share_has_sunk() -> None:
    sink = Sink()
    assert held(sink.writes(1000, refused=100))
    assert held(sink.writes(1, refused=1))
    sink.writes(5000)
    assert not sink.window.suspects_sink
    assert not held(sink.writes(1, refused=1))


def test_a_held_batch_waits_longer_each_time_up_to_a_cap() -> None:
    tried = (Sink().writes(1000, refused=1000, attempt=n) for n in (1, 2, 3, 4, 5, 99))
    waits = [outcome.retry_in_s for outcome in tried]
    assert waits == [HOLD_S, 60, 120, 240, HOLD_CAP_S, HOLD_CAP_S]


def test_a_limit_of_one_switches_it_off() -> None:
    sink = Sink(limit=1.0)
    assert not held(sink.writes(5000, refused=5000))


def test_raising_the_limit_lets_the_held_records_go() -> None:
    sink = Sink()
    assert held(sink.writes(5000, refused=500))
    sink.window.configure(0.2)
    assert not held(sink.writes(5000, refused=500))


def test_the_same_limit_again_forgets_nothing() -> None:
    sink = Sink()
    assert held(sink.writes(5000, refused=500))
    sink.window.configure(0.05)
    assert held(sink.writes(1, refused=1))


def test_a_replaced_sink_is_not_suspected() -> None:
    sink = Sink()
    assert held(sink.writes(5000, refused=500))
    sink.window.reset()
    assert not held(sink.writes(100, refused=100))
