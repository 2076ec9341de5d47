"""When the next ping is due, also where clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthmon.heartbeats.kind import KIND, HeartbeatOptions
from healthmon.heartbeats.schedule import due, expected_after, next_miss
from sinks.options import OptionsError, decode_options


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_period_and_its_grace() -> None:
    found = due(HeartbeatOptions(grace_s=30), 60.0, at("2026-03-01T10:00:00"))
    assert found is not None
    assert found.expected == at("2026-03-01T10:01:00")
    assert found.missed_at == at("2026-03-01T10:01:30")
    assert found.reason == "no ping since 2026-03-01 10:00:00 UTC, with a grace of 30 s"


def test_nothing_is_due_before_the_first_ping() -> None:
    assert due(HeartbeatOptions(), 60.0, None) is None


def test_cron_in_a_time_zone() -> None:
    options = HeartbeatOptions(cron="30 2 * * *", time_zone="Europe/Berlin", grace_s=600)
    found = due(options, 60.0, at("2026-01-10T01:31:00"))
    assert found is not None
    assert found.expected == at("2026-01-11T01:30:00")
    assert found.missed_at == at("2026-01-11T01:40:00")
    assert "30 2 * * * (Europe/Berlin)" in found.reason


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        # 2026-03-29: 02:00 becomes 03:00, and 02:30 does not exist.
        ("2026-03-28T01:31:00", "2026-03-29T01:00:00"),
        ("2026-03-29T01:00:30", "2026-03-30T00:30:00"),
        # 2026-10-25: 02:30 comes twice and the job runs once.
        ("2026-10-24T00:31:00", "2026-10-25T00:30:00"),
        ("2026-10-25T00:31:00", "2026-10-26T01:30:00"),
    ],
)
def test_where_clocks_change_the_job_is_due_once(last: str, expected: str) -> None:
    options = HeartbeatOptions(cron="30 2 * * *", time_zone="Europe/Berlin")
    assert expected_after(options, 60.0, at(last)) == at(expected)


def test_a_run_that_began_is_waited_for_until_it_ends() -> None:
    options = HeartbeatOptions(grace_s=600)
    began = at("2026-03-01T10:01:10")
    found = due(options, 60.0, at("2026-03-01T10:00:00"), run_began=began)
    assert found is not None
    assert found.missed_at == began + timedelta(seconds=600)
    assert "has not ended within 600 s" in found.reason


def test_after_a_long_time_it_is_told_once_and_then_at_its_pace() -> None:
    options = HeartbeatOptions(grace_s=30)
    found = due(options, 60.0, at("2026-03-01T10:00:00"))
    assert found is not None
    now = at("2026-03-04T00:00:00")
    assert next_miss(options, 60.0, found, now) == now + timedelta(seconds=90)


@given(
    last=st.integers(1_577_836_800, 1_893_456_000).map(lambda s: datetime.fromtimestamp(s, UTC)),
    cron=st.sampled_from(["* * * * *", "0 * * * *", "15 3 * * 1", "0 0 1 * *", "*/7 2 * * *"]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"]),
)
def test_what_is_expected_is_always_later(last: datetime, cron: str, zone: str) -> None:
    options = HeartbeatOptions(cron=cron, time_zone=zone)
    expected = expected_after(options, 60.0, last)
    assert last < expected < last + timedelta(days=32)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"cron": "30 2 * *"}, "five fields"),
        ({"cron": "61 2 * * *"}, "cron:"),
        ({"cron": "0 0 30 2 *"}, "cron:"),
        ({"cron": "* * * * * *"}, "five fields"),
        ({"time_zone": "Europe/Nowhere"}, "no time zone"),
        ({"grace_s": -1}, "grace_s"),
        ({"period": 5}, "unknown option"),
    ],
)
def test_options_that_are_refused(values: dict[str, object], text: str) -> None:
    with pytest.raises(OptionsError, match=text):
        decode_options(HeartbeatOptions, values)


def test_the_kind_is_passive() -> None:
    assert KIND.probe is None
    assert KIND.address_problem("") == ""
    assert KIND.address_problem("nightly-backup") == ""
    assert KIND.address_problem("x" * 201)
    assert KIND.address_problem(" x")
