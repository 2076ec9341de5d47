"""Quiet hours: across midnight, and across the nights when clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from hypothesis import given
from hypothesis import strategies as st

from healthmon.notify.quiet import quiet_until


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def until(now: str, begins: str, ends: str, zone: str = "Europe/Berlin") -> str | None:
    end = quiet_until(
        at(now),
        begins=time.fromisoformat(begins),
        ends=time.fromisoformat(ends),
        time_zone=zone,
    )
    return end.strftime("%Y-%m-%d %H:%M") if end is not None else None


def test_across_midnight():
    assert until("2026-11-22 20:59", "22:00", "07:00") is None
    assert until("2026-11-22 21:00", "22:00", "07:00") == "2026-11-23 06:00"
    assert until("2026-11-23 05:59", "22:00", "07:00") == "2026-11-23 06:00"
    assert until("2026-11-23 06:00", "22:00", "07:00") is None


def test_within_a_day():
    assert until("2026-11-22 11:30", "12:00", "13:00") == "2026-11-22 12:00"
    assert until("2026-11-22 12:30", "12:00", "13:00") is None


def test_none():
    now = at("2026-11-22 12:00")
    assert quiet_until(now, begins=None, ends=None, time_zone="UTC") is None
    assert quiet_until(now, begins=time(1), ends=None, time_zone="UTC") is None
    assert quiet_until(now, begins=time(1), ends=time(1), time_zone="UTC") is None


def test_a_zone_that_this_system_does_not_know_is_utc():
    assert until("2026-11-22 23:00", "22:00", "07:00", "Nowhere/Else") == "2026-11-23 07:00"


def test_the_night_that_is_an_hour_shorter():
    # 2026-03-29 in Berlin: 02:00 becomes 03:00 (01:00 UTC).
    assert until("2026-03-28 22:00", "22:00", "07:00") == "2026-03-29 05:00"
    assert until("2026-03-29 00:30", "01:00", "02:30") == "2026-03-29 01:30"
    assert until("2026-03-29 01:29", "01:00", "02:30") == "2026-03-29 01:30"
    assert until("2026-03-29 01:30", "01:00", "02:30") is None


def test_the_night_that_is_an_hour_longer():
    # 2026-10-25 in Berlin: 03:00 becomes 02:00 (01:00 UTC); 02:30 comes twice.
    assert until("2026-10-24 21:00", "22:00", "07:00") == "2026-10-25 06:00"
    for now in ("2026-10-24 23:30", "2026-10-25 00:29", "2026-10-25 01:29"):
        assert until(now, "01:00", "02:30") == "2026-10-25 01:30"
    assert until("2026-10-25 01:30", "01:00", "02:30") is None


@given(
    hours=st.floats(0, 2 * 365 * 24),
    begins=st.times(),
    ends=st.times(),
    zone=st.sampled_from(
        ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"]
    ),
)
def test_the_end_is_ahead_and_within_a_day(hours, begins, ends, zone):
    now = at("2026-01-01 00:00") + timedelta(hours=hours)
    end = quiet_until(now, begins=begins, ends=ends, time_zone=zone)
    if end is None:
        return
    assert timedelta(0) < end - now <= timedelta(hours=26)
