"""The retry policy: exponential backoff with full jitter, and when to give up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.delivery.retry import RETRY_AFTER_CAP_S, RetryDecision, RetryPolicy
from pipeline.errors import PermanentError, RetryableError, SinkFault


def full() -> float:
    """The jitter that leaves the whole backoff."""
    return 1.0


def test_the_backoff_doubles_up_to_its_cap() -> None:
    policy = RetryPolicy(base_s=0.1, cap_s=1.0)
    delays = [
        policy.decide(OSError(), attempt=n, age_s=0.0, jitter=full).delay_s for n in range(1, 7)
    ]
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


@given(
    attempt=st.integers(1, 10_000),
    base=st.floats(0.001, 10),
    cap=st.floats(10, 1000),
    fraction=st.floats(0, 1),
)
def test_full_jitter_stays_between_nothing_and_the_backoff(
    attempt: int, base: float, cap: float, fraction: float
) -> None:
    policy = RetryPolicy(base_s=base, cap_s=cap)
    decision = policy.decide(OSError(), attempt=attempt, age_s=0.0, jitter=lambda: fraction)
    assert decision.retry
    assert 0 <= decision.delay_s <= min(cap, base * 2.0 ** min(attempt - 1, 60))


def test_the_jitter_is_random_unless_told_otherwise() -> None:
    policy = RetryPolicy()
    delays = {policy.decide(OSError(), attempt=9, age_s=0.0).delay_s for _ in range(20)}
    assert len(delays) > 1


def test_a_sink_that_asks_for_more_time_gets_it() -> None:
    decide = RetryPolicy(base_s=1.0, cap_s=1.0).decide
    asked = RetryableError("busy", retry_after_s=17.0)
    assert decide(asked, attempt=1, age_s=0, jitter=full).delay_s == 17.0
    hasty = RetryableError("busy", retry_after_s=0.0)
    assert decide(hasty, attempt=1, age_s=0, jitter=full).delay_s == 1.0


@pytest.mark.parametrize("asked", [1e12, float("inf")])
def test_what_a_sink_asks_for_is_bounded(asked: float) -> None:
    error = RetryableError("come back some day", retry_after_s=asked)
    assert RetryPolicy().decide(error, attempt=1, age_s=0).delay_s == RETRY_AFTER_CAP_S


def test_a_permanent_error_is_never_tried_again() -> None:
    decision = RetryPolicy().decide(PermanentError("no"), attempt=1, age_s=0)
    assert decision == RetryDecision(retry=False, delay_s=0.0, reason="permanent")


def test_the_last_of_the_allowed_attempts_gives_up() -> None:
    policy = RetryPolicy(max_attempts=3)
    retried = [policy.decide(OSError(), attempt=n, age_s=0).retry for n in (1, 2, 3, 4)]
    assert retried == [True, True, False, False]
    assert policy.decide(OSError(), attempt=3, age_s=0).reason == "attempts"


def test_retries_stop_where_the_next_one_would_pass_the_age() -> None:
    policy = RetryPolicy(base_s=1.0, cap_s=1.0, max_age_s=10.0)
    assert policy.decide(OSError(), attempt=1, age_s=8.9, jitter=full).retry
    late = policy.decide(OSError(), attempt=1, age_s=9.0, jitter=full)
    assert (late.retry, late.reason) == (False, "age")


def test_a_fault_of_the_sink_outlasts_every_limit() -> None:
    policy = RetryPolicy(max_attempts=1, max_age_s=1.0)
    decision = policy.decide(SinkFault("no such table"), attempt=99, age_s=1e6)
    assert decision.retry


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"base_s": 0.0}, "0 < base_s <= cap_s"),
        ({"base_s": 2.0, "cap_s": 1.0}, "0 < base_s <= cap_s"),
        ({"max_attempts": 0}, "max_attempts must be at least 1"),
        ({"max_age_s": 0.0}, "max_age_s must be positive"),
    ],
)
def test_a_policy_without_sense_is_refused(settings: dict[str, float], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        RetryPolicy(**settings)  # type: ignore[arg-type]
