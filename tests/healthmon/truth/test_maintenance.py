"""Maintenance windows: once and by cron, on the nights the clocks change, and bounded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healthmon.truth.maintenance import (
    Window,
    active,
    next_start,
    open_until,
    problem,
)

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def weekly(**fields: object) -> Window:
    """Sundays at 02:30 in Vienna, for an hour, since 2026 began."""
    values = {
        "starts_at": utc("2026-01-04T01:30"),
        "duration_s": 3600,
        "cron": "30 2 * * SUN",
        "time_zone": "Europe/Vienna",
        **fields,
    }
    return Window(**values)  # type: ignore[arg-type]


def starts(window: Window, start: str, end: str) -> list[str]:
    """When it opens from `start` to before `end`."""
    found = []
    moment = next_start(window, utc(start) - SECOND)
    while moment is not None and moment < utc(end):
        found.append(f"{moment:%m-%d %H:%M}")
        moment = next_start(window, moment)
    return found


def test_once() -> None:
    window = Window(starts_at=utc("2026-05-01T10:00"), duration_s=1800)
    assert not active(window, utc("2026-05-01T09:59:59"))
    assert active(window, utc("2026-05-01T10:00"))
    assert active(window, utc("2026-05-01T10:29:59"))
    assert not active(window, utc("2026-05-01T10:30"))
    assert open_until(window, utc("2026-05-01T10:10")) == utc("2026-05-01T10:30")
    assert next_start(window, utc("2026-05-01T09:00")) == utc("2026-05-01T10:00")
    assert next_start(window, utc("2026-05-01T10:00")) is None
    assert open_until(window, utc("2026-05-01T10:30")) is None


def test_the_wall_clock_is_followed_through_the_year() -> None:
    assert starts(weekly(), "2026-01-01T00:00", "2026-01-20T00:00") == [
        "01-04 01:30",
        "01-11 01:30",
        "01-18 01:30",
    ]
    assert starts(weekly(), "2026-07-01T00:00", "2026-07-10T00:00") == ["07-05 00:30"]


def test_the_hour_that_is_skipped() -> None:
    """On 29 March the clock goes from 02:00 to 03:00: it opens then, for its whole hour."""
    assert starts(weekly(), "2026-03-28T00:00", "2026-03-31T00:00") == ["03-29 01:00"]
    assert active(weekly(), utc("2026-03-29T01:59:59"))
    assert not active(weekly(), utc("2026-03-29T02:00"))
    assert next_start(weekly(), utc("2026-03-28T12:00")) == utc("2026-03-29T01:00")


def test_the_hour_that_comes_twice() -> None:
    """On 25 October 02:30 comes twice: it opens the first time only, for one hour of time."""
    assert starts(weekly(), "2026-10-24T00:00", "2026-10-27T00:00") == ["10-25 00:30"]
    assert not active(weekly(), utc("2026-10-25T01:30"))
    assert next_start(weekly(), utc("2026-10-25T00:30")) == utc("2026-11-01T01:30")


def test_a_night_of_two_changes_lasts_as_long_as_it_says() -> None:
    window = weekly(cron="0 0 * * SUN", duration_s=6 * 3600)
    for night in ("2026-03-28T23:00", "2026-10-24T22:00"):
        assert open_until(window, utc(night)) == utc(night) + 6 * HOUR


def test_the_first_start_counts_though_cron_would_not_say_it() -> None:
    window = weekly(starts_at=utc("2026-01-06T12:00"))
    assert active(window, utc("2026-01-06T12:30"))
    assert starts(window, "2026-01-01T00:00", "2026-01-12T00:00") == ["01-06 12:00", "01-11 01:30"]
    assert not active(window, utc("2026-01-04T02:00"))


def test_no_recurrence_begins_after_its_end() -> None:
    window = weekly(ends_at=utc("2026-01-11T01:30"))
    assert starts(window, "2026-01-01T00:00", "2026-02-01T00:00") == ["01-04 01:30", "01-11 01:30"]
    assert next_start(window, utc("2026-01-11T01:30")) is None
    assert active(window, utc("2026-01-11T02:00"))  # what has begun is not cut short


def test_windows_longer_than_their_period_are_always_open() -> None:
    window = Window(
        starts_at=utc("2026-01-01T00:00"), duration_s=7200, cron="*/10 * * * *", time_zone="UTC"
    )
    now = utc("2026-06-01T12:34")
    assert active(window, now)
    assert open_until(window, now) == utc("2026-06-01T14:30")
    assert next_start(window, now) == utc("2026-06-01T12:40")


def test_a_month_long_window_that_opens_once_a_year() -> None:
    window = Window(starts_at=utc("2020-02-29T00:00"), duration_s=31 * 86_400, cron="0 0 1 12 *")
    assert active(window, utc("2025-12-31T23:59"))
    assert not active(window, utc("2026-01-01T00:00"))
    assert next_start(window, utc("2026-01-01T00:00")) == utc("2026-12-01T00:00")


def test_how_much_is_answered_is_bounded() -> None:
    rare = Window(starts_at=utc("2026-01-01T00:00"), duration_s=60, cron="0 0 29 2 *")
    assert next_start(rare, utc("2026-02-01T00:00")) is None  # in 2028


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, ""),
        ({"cron": ""}, ""),
        ({"time_zone": "Mars/Olympus"}, "time zone"),
        ({"time_zone": "../etc/passwd"}, "time zone"),
        ({"time_zone": "x" * 500}, "time zone"),
        ({"cron": "61 * * * *"}, "minute"),
        ({"cron": "* * * * * *"}, "five fields"),
        ({"cron": "nonsense"}, "five fields"),
        ({"cron": "0 0 30 2 *"}, "day-of-month"),
        ({"duration_s": 0}, "lasts"),
        ({"ends_at": datetime(2025, 1, 1, tzinfo=UTC)}, "before it starts"),
    ],
)
def test_what_is_wrong_is_said(fields: dict[str, object], said: str) -> None:
    text = problem(weekly(**fields))
    assert (said in text) if said else text == ""


@pytest.mark.parametrize("fields", [{"cron": "61 * * * *"}, {"time_zone": "Mars/Olympus"}])
def test_a_window_that_cannot_recur_opens_once(fields: dict[str, object]) -> None:
    window = weekly(**fields)
    assert active(window, utc("2026-01-04T02:00"))
    assert not active(window, utc("2026-01-11T02:00"))
    assert next_start(window, utc("2026-02-01T00:00")) is None


@given(
    minute=st.integers(0, 60 * 24 * 366),
    cron=st.sampled_from(
        ["30 2 * * *", "0 */6 * * *", "15 1 * * SUN", "*/20 2-4 * * *", "0 0 1 * *"]
    ),
    zone=st.sampled_from(
        ["Europe/Vienna", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]
    ),
    hours=st.sampled_from([1, 5, 30]),
)
@settings(max_examples=150, deadline=None)
def test_open_is_what_some_occurrence_says(minute: int, cron: str, zone: str, hours: int) -> None:
    window = Window(
        starts_at=utc("2025-11-01T00:00"), duration_s=hours * 3600, cron=cron, time_zone=zone
    )
    now = utc("2026-01-01T00:00") + timedelta(minutes=minute)
    begun = []
    moment = next_start(window, now - 40 * HOUR)
    while moment is not None and moment <= now:
        begun.append(moment)
        moment = next_start(window, moment)
    assert active(window, now) == any(now < one + window.duration for one in begun)
    if begun and active(window, now):
        assert open_until(window, now) == begun[-1] + window.duration
    later = next_start(window, now)
    assert later is not None
    assert later > now
    assert active(window, later)
