"""The breaker, rule by rule: when it trips, how long it stays open, how it closes again."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.delivery.breaker import CLOSED, HALF_OPEN, OPEN, Breaker, BreakerSettings
from pipeline.delivery.retry import RETRY_AFTER_CAP_S

# Far above any count here, so that only the rule under test can trip it.
NEVER = 10_000


def breaker(**settings: Any) -> Breaker:
    settings.setdefault("consecutive", NEVER)
    settings.setdefault("min_calls", NEVER)
    return Breaker(BreakerSettings(**settings), 0.0)


def attempt(of: Breaker, now: float, outcome: str, **how: Any) -> None:
    permit = of.permit(now)
    assert permit is not None
    if outcome == "ok":
        of.succeeded(permit, now)
    else:
        of.failed(permit, now, outcome, **how)


def tripped(**settings: Any) -> Breaker:
    """A breaker that opened at 0 s."""
    of = breaker(**({"consecutive": 1} | settings))
    attempt(of, 0.0, "connection refused")
    assert of.state == OPEN
    return of


# --- tripping ------------------------------------------------------------------------------


def test_the_fifth_failure_in_a_row_trips_it() -> None:
    of = breaker(consecutive=5)
    for second in range(4):
        attempt(of, second, "reset")
        assert of.state == CLOSED
    attempt(of, 4, "refused")
    assert (of.state, of.trips, of.cause, of.opened_at) == (OPEN, 1, "refused", 4)


def test_a_success_begins_the_row_anew() -> None:
    of = breaker(consecutive=2)
    for outcome in ("no", "ok", "no", "ok", "no"):
        attempt(of, 1, outcome)
    assert of.state == CLOSED
    attempt(of, 1, "no")
    assert of.state == OPEN


def test_a_share_of_failures_trips_it_once_there_are_enough_attempts() -> None:
    of = breaker(min_calls=5, failure_ratio=0.6)
    for outcome in ("no", "no", "ok", "ok"):  # half of four: too few attempts, too small a share
        attempt(of, 1, outcome)
    assert of.state == CLOSED
    attempt(of, 1, "no")
    assert of.state == OPEN


def test_a_share_just_below_the_ratio_does_not_trip_it() -> None:
    of = breaker(min_calls=3, failure_ratio=0.6)
    for _ in range(50):
        for outcome in ("ok", "no"):
            attempt(of, 1, outcome)
    assert of.state == CLOSED


def test_fewer_attempts_than_asked_for_prove_nothing() -> None:
    of = breaker(min_calls=3)
    attempt(of, 1, "no")
    attempt(of, 1, "no")
    assert of.state == CLOSED
    attempt(of, 1, "no")
    assert of.state == OPEN


def test_what_left_the_window_does_not_count() -> None:
    of = breaker(min_calls=3, window_s=60)
    attempt(of, 0, "no")
    attempt(of, 1, "no")
    attempt(of, 61, "no")
    attempt(of, 62, "no")
    assert of.state == CLOSED
    attempt(of, 63, "no")
    assert of.state == OPEN


def test_many_attempts_are_counted_in_few_numbers() -> None:
    of = breaker()
    for n in range(10_000):
        attempt(of, n / 10, "ok")
    assert len(of._steps) <= 60


def test_one_failure_that_proves_enough_trips_it_alone() -> None:
    of = breaker()
    attempt(of, 1, "too many records refused", trip=True)
    assert (of.state, of.cause) == (OPEN, "too many records refused")


# --- open ----------------------------------------------------------------------------------


def test_an_open_breaker_gives_no_permit_until_its_time_is_over() -> None:
    of = tripped(open_s=30)
    assert of.permit(29.9) is None
    assert of.due_s(10) == of.retry_in_s(10) == 20
    assert of.due_s(30) == 0
    assert of.state == OPEN  # nobody has asked yet
    assert of.permit(30) is not None
    assert of.state == HALF_OPEN


@pytest.mark.parametrize(("asked", "open_for"), [(5, 30), (100, 100), (1e12, RETRY_AFTER_CAP_S)])
def test_it_stays_open_as_long_as_the_sink_asks(asked: float, open_for: float) -> None:
    of = breaker(consecutive=1, open_s=30)
    attempt(of, 0, "busy", retry_after_s=asked)
    assert of.retry_in_s(0) == open_for


def test_what_the_sink_asked_for_before_the_trip_is_kept_and_before_a_success_forgotten() -> None:
    of = breaker(consecutive=2, open_s=30)
    attempt(of, 0, "busy", retry_after_s=1000)
    attempt(of, 0, "ok")
    attempt(of, 0, "busy", retry_after_s=90)
    attempt(of, 10, "reset")
    assert of.retry_in_s(10) == 80


def test_repeated_trips_do_not_grow_the_time_it_is_open() -> None:
    of = tripped(open_s=30)
    for trip in range(1, 6):
        attempt(of, trip * 30, "still refused")
        assert (of.state, of.trips, of.retry_in_s(trip * 30)) == (OPEN, trip + 1, 30)
    assert of.opened_at == 0  # it has not been closed since


# --- half-open -----------------------------------------------------------------------------


def test_one_probe_goes_out_at_a_time_and_its_success_closes() -> None:
    of = tripped(open_s=30)
    probe = of.permit(30)
    assert probe is not None
    assert of.permit(31) is None
    assert of.due_s(1e9) is None  # only the end of the probe can change that
    of.succeeded(probe, 32)
    assert (of.state, of.opened_at, of.cause, of.due_s(32)) == (CLOSED, None, "", 0)


def test_as_many_probes_as_are_let_through_must_succeed() -> None:
    of = tripped(open_s=30, half_open_probes=2)
    first, second = of.permit(30), of.permit(30)
    assert first is not None
    assert second is not None
    assert of.permit(30) is None
    of.succeeded(first, 31)
    assert of.state == HALF_OPEN
    assert of.permit(31) is None  # one succeeded, one is out: that is two
    of.succeeded(second, 31)
    assert of.state == CLOSED


def test_the_first_probe_that_fails_opens_again_whatever_the_others_do() -> None:
    of = tripped(open_s=30, half_open_probes=2)
    first, second = of.permit(30), of.permit(30)
    assert first is not None
    assert second is not None
    of.failed(first, 31, "still refused")
    of.succeeded(second, 32)
    assert (of.state, of.cause, of.retry_in_s(32)) == (OPEN, "still refused", 29)


def test_a_probe_that_says_nothing_gives_its_place_back() -> None:
    of = tripped(open_s=30)
    probe = of.permit(30)
    assert probe is not None
    of.ignored(probe)
    assert (of.state, of.due_s(30)) == (HALF_OPEN, 0)
    attempt(of, 30, "ok")
    assert of.state == CLOSED


def test_a_closed_breaker_has_forgotten_what_tripped_it() -> None:
    of = breaker(consecutive=3, min_calls=4, open_s=30)
    for _ in range(3):
        attempt(of, 0, "no")
    attempt(of, 30, "ok")
    attempt(of, 31, "no")
    attempt(of, 31, "no")
    assert of.state == CLOSED


# --- generations ---------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["succeeded", "failed", "ignored"])
def test_an_attempt_of_before_the_trip_changes_nothing(end: str) -> None:
    of = breaker(consecutive=1, open_s=30)
    old = of.permit(0)
    assert old is not None
    attempt(of, 1, "no")
    probe = of.permit(31)
    assert probe is not None
    if end == "succeeded":
        of.succeeded(old, 32)
    elif end == "failed":
        of.failed(old, 32, "late", retry_after_s=1000)
    else:
        of.ignored(old)
    assert (of.state, of.trips, of.due_s(32)) == (HALF_OPEN, 1, None)
    of.succeeded(probe, 33)
    assert of.state == CLOSED
    of.failed(old, 34, "later still")
    assert of.state == CLOSED


def test_a_permit_ends_once() -> None:
    of = breaker(consecutive=2)
    permit = of.permit(0)
    assert permit is not None
    of.failed(permit, 0, "hung")
    of.failed(permit, 0, "came back late")
    assert of.state == CLOSED


# --- the time it was closed ----------------------------------------------------------------


def test_time_counts_only_while_it_is_closed() -> None:
    of = breaker(consecutive=1, open_s=30)
    assert of.closed_s(7) == 7
    attempt(of, 10, "no")
    assert of.closed_s(35) == 10
    probe = of.permit(40)
    assert probe is not None
    assert of.closed_s(50) == 10  # half-open is not closed
    of.succeeded(probe, 60)
    assert of.closed_s(60) == 10
    assert of.closed_s(65) == 15


# --- from outside --------------------------------------------------------------------------


def test_a_replaced_sink_begins_closed() -> None:
    of = tripped(open_s=30)
    of.reset(5)
    assert (of.state, of.due_s(5), of.cause, of.opened_at) == (CLOSED, 0, "", None)
    assert of.closed_s(8) == 3
    of.reset(9)
    assert of.closed_s(10) == 5


def test_a_permit_of_before_the_replacement_says_nothing_about_the_new_sink() -> None:
    of = breaker(consecutive=1)
    old = of.permit(0)
    assert old is not None
    of.reset(1)
    of.failed(old, 2, "the old sink")
    assert of.state == CLOSED


def test_a_breaker_that_is_switched_off_never_trips_and_closes() -> None:
    of = tripped()
    of.configure(BreakerSettings(enabled=False, consecutive=1), 5)
    for second in range(10):
        attempt(of, second, "no", trip=True)
    assert (of.state, of.trips) == (CLOSED, 1)


def test_changed_settings_count_for_the_time_that_is_left() -> None:
    of = tripped(open_s=30)
    of.configure(BreakerSettings(open_s=5), 1)
    assert of.retry_in_s(1) == 4


def test_fewer_probes_asked_for_than_have_succeeded_close_it() -> None:
    of = tripped(open_s=30, half_open_probes=2)
    attempt(of, 30, "ok")
    of.configure(BreakerSettings(half_open_probes=1), 31)
    assert of.state == CLOSED


def test_the_same_settings_again_change_nothing() -> None:
    of = breaker(min_calls=2)
    attempt(of, 0, "no")
    of.configure(BreakerSettings(consecutive=NEVER, min_calls=2), 0)
    attempt(of, 0, "no")
    assert of.state == OPEN


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("consecutive", 0),
        ("failure_ratio", 0.0),
        ("failure_ratio", 1.1),
        ("min_calls", 0),
        ("window_s", 0.0),
        ("open_s", 0.0),
        ("half_open_probes", 0),
    ],
)
def test_settings_without_sense_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"breaker {field}"):
        BreakerSettings(**{field: value})  # type: ignore[arg-type]
