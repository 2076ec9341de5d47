"""When times come: as cron has it, also on the nights the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.schedules.cron import ScheduleError, next_time, next_times, problems

VIENNA = "Europe/Vienna"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def times(expression: str, zone: str, after: str, count: int) -> list[str]:
    found = next_times(expression, zone, utc(after), count)
    return [f"{at:%m-%d %H:%M}" for at in found]


def test_a_time_that_is_now_is_over():
    assert next_time("0 * * * *", "UTC", utc("2026-05-01T10:00:00")) == utc("2026-05-01T11:00:00")
    before = utc("2026-05-01T09:59:59.999999")
    assert next_time("0 * * * *", "UTC", before) == utc("2026-05-01T10:00:00")


def test_cron_follows_the_clock_of_its_place():
    # Noon in Vienna is 11:00 UTC in winter and 10:00 in summer.
    assert times("0 12 * * *", VIENNA, "2026-03-27T23:00:00", 3) == [
        "03-28 11:00",
        "03-29 10:00",
        "03-30 10:00",
    ]


def test_what_falls_into_the_skipped_hour_comes_right_after_it():
    assert times("30 2 * * *", VIENNA, "2026-03-28T12:00:00", 2) == ["03-29 01:00", "03-30 00:30"]


def test_what_falls_into_the_hour_that_comes_twice_comes_once():
    assert times("30 2 * * *", VIENNA, "2026-10-24T12:00:00", 2) == ["10-25 00:30", "10-26 01:30"]


def test_what_is_asked_in_the_second_of_two_such_hours_is_not_before_then():
    # 02:10 for the second time: 02:30 has been.
    assert times("30 2 * * *", VIENNA, "2026-10-25T01:10:00", 1) == ["10-26 01:30"]


def test_every_so_many_minutes_goes_on_through_both():
    assert times("*/30 * * * *", VIENNA, "2026-10-24T23:45:00", 6) == [
        "10-25 00:00",
        "10-25 00:30",
        "10-25 01:00",
        "10-25 01:30",
        "10-25 02:00",
        "10-25 02:30",
    ]


@pytest.mark.parametrize(
    ("named", "meant"),
    [("@daily", "0 0 * * *"), ("@Hourly", "0 * * * *"), ("@yearly", "0 0 1 1 *")],
)
def test_names_stand_for_expressions(named: str, meant: str):
    at = utc("2026-05-01T10:30:00")
    assert next_time(named, "UTC", at) == next_time(meant, "UTC", at)


@pytest.mark.parametrize(
    "expression",
    ["", "* * * *", "* * * * * *", "61 * * * *", "@often", "x y z a b", "*/0 * * * *", "1 " * 90],
    ids=["empty", "four", "six", "61", "unknown-name", "words", "step-0", "long"],
)
def test_what_is_no_expression_is_refused_with_the_reason(expression: str):
    assert set(problems(expression, "UTC")) == {"cron"}
    with pytest.raises(ScheduleError, match="cron"):
        next_time(expression, "UTC", utc("2026-05-01T00:00:00"))


@pytest.mark.parametrize("zone", ["", "Mars/Base", "../../etc/passwd", "Europe/\0"])
def test_what_is_no_zone_is_refused(zone: str):
    found = problems("0 * * * *", zone)
    assert set(found) == {"timezone"}
    assert "Europe/Vienna" in found["timezone"]


def test_what_never_comes_is_said():
    assert set(problems("0 0 30 2 *", "UTC")) == {"cron"}
    assert problems("0 0 29 2 *", "UTC") == {}


@given(
    minute=st.sampled_from(["*", "*/7", "0", "30", "15,45"]),
    hour=st.sampled_from(["*", "2", "1-3", "*/5"]),
    zone=st.sampled_from(["UTC", VIENNA, "America/New_York", "Australia/Lord_Howe"]),
    at=st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)),  # noqa: DTZ001
)
def test_times_rise_and_are_found_again_from_a_second_before(
    minute: str, hour: str, zone: str, at: datetime
):
    expression = f"{minute} {hour} * * *"
    found = next_times(expression, zone, at.replace(tzinfo=UTC), 4)
    assert found == sorted(set(found))
    assert all(one > at.replace(tzinfo=UTC) for one in found)
    for one in found:
        assert one.astimezone(ZoneInfo(zone)).second == 0
        assert next_time(expression, zone, one - timedelta(seconds=1)) == one
