from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from control.admin.figures import NOTHING, ago, compact, duration, percent, size

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, NOTHING),
        (0, "0"),
        (0.25, "0.25"),
        (12.34, "12.3"),
        (9_999, "9,999"),
        (10_000, "10 k"),
        (12_345, "12.3 k"),
        (999_940, "1 M"),
        (1_234_567, "1.23 M"),
        (5e9, "5 G"),
        (-1500, "-1,500"),
    ],
)
def test_counts_are_compact_and_small_ones_exact(value: float | None, text: str) -> None:
    assert compact(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, NOTHING),
        (0, "0 s"),
        (0.00085, "850 µs"),
        (0.0123, "12.3 ms"),
        (4.2, "4.2 s"),
        (89.999, "1 min 30 s"),
        (180, "3 min"),
        (599.6, "10 min"),
        (650, "11 min"),
        (3599, "1 h"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (86_400 * 3, "3 d"),
    ],
)
def test_durations_choose_their_unit(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_and_percentages() -> None:
    assert size(0) == "0 B"
    assert size(4.2 * 1024 * 1024) == "4.2 MiB"
    assert size(None) == NOTHING
    assert percent(0.004) == "<1 %"
    assert percent(0.5) == "50 %"
    assert percent(None) == NOTHING


def test_ago() -> None:
    assert ago(None, NOW) == "never"
    assert ago(NOW, NOW) == "now"
    assert ago(NOW - timedelta(seconds=90.7), NOW) == "2 min ago"
