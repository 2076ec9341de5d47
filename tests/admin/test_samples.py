from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from control.admin.buckets import bucketed
from control.admin.overview import recent_rates
from control.admin.samples import Window

NOW = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)
WINDOW = Window(ends_at=NOW, step_s=10.0, count=6)


def sample(seconds_ago: float, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "process_id": "p1",
        "key": "db",
        "name": "database",
        "at": NOW - timedelta(seconds=seconds_ago),
        "interval_s": 5.0,
        "batches": 1,
        "accepted": 50,
        "stored": 40,
        "refused": 0,
        "dropped": 0,
        "held_records": 10,
        "capacity_records": 100,
        "held_bytes": 1_000,
        "peak_fill": 0.0,
        "shed": 0,
        "workers": 1,
        "write_limit": 4,
        "batch_limit": 5_000,
        "scaled_up": 0,
        "scaled_down": 0,
        "write_p50_s": 0.01,
        "write_p95_s": 0.02,
        "write_p99_s": 0.03,
    }
    return {**row, **changes}


def test_counts_become_rates_and_a_silent_time_is_a_gap() -> None:
    (history,) = bucketed([sample(40), sample(35), sample(30), sample(5), sample(0)], WINDOW)
    assert list(history.stored) == [None, 8.0, 8.0, None, None, 8.0]


def test_a_sample_is_spread_over_the_time_it_tells_of() -> None:
    # From 35 s ago to 25 s ago: half in each of two buckets.
    (history,) = bucketed([sample(25, interval_s=10.0, stored=100)], WINDOW)
    assert list(history.stored) == [None, None, 10.0, 10.0, None, None]


def test_processes_are_added_and_the_slowest_write_counts() -> None:
    rows = [
        sample(0),
        sample(5),
        sample(0, process_id="p2", write_p95_s=0.5),
        sample(5, process_id="p2"),
    ]
    (history,) = bucketed(rows, WINDOW)
    assert history.stored[-1] == 16.0
    assert history.p95[-1] == 0.5
    assert history.fill[-1] == pytest.approx(0.1)


def test_without_a_write_there_is_no_latency() -> None:
    (history,) = bucketed([sample(0, batches=0), sample(5, batches=0)], WINDOW)
    assert history.p95[-1] is None
    assert history.accepted[-1] == 10.0


def test_the_newest_name_of_a_pipeline_wins() -> None:
    (history,) = bucketed([sample(5, name="old"), sample(0, name="new")], WINDOW)
    assert history.name == "new"


def test_the_window_ends_where_samples_must_have_come() -> None:
    window = Window.until(NOW + timedelta(seconds=3))
    assert window.ends_at == NOW - timedelta(seconds=10)
    assert window.ends_at - window.starts_at == timedelta(minutes=15)


def test_recent_rates_ignore_what_is_old() -> None:
    rates = recent_rates([sample(60, stored=9999), sample(10), sample(5)], NOW)
    assert rates[("p1", "db")].stored / rates[("p1", "db")].seconds == 8.0


def test_the_peak_of_a_bucket_is_the_highest_of_its_samples() -> None:
    rows = [sample(15, peak_fill=0.3), sample(10, peak_fill=0.8), sample(5, peak_fill=0.05)]
    (history,) = bucketed(rows, Window(ends_at=NOW, step_s=10.0, count=3))
    assert list(history.fill) == [None, 0.1, 0.1]
    assert list(history.peak) == [None, 0.8, 0.1], "never less than what the sample itself found"
    assert history.latest_peak == 0.8
