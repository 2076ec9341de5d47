"""A pipeline's settings: every broken rule is named, all at once."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.settings import GIB, MIB, PipelineSettings


def test_the_defaults_hold_a_long_outage_of_a_fast_sink() -> None:
    settings = PipelineSettings()
    assert (settings.max_records, settings.max_bytes, settings.max_wait_s) == (5_000, 4 * MIB, 0.2)
    assert (settings.capacity_records, settings.backlog_max_bytes) == (10_000_000, GIB)
    assert (settings.min_workers, settings.max_workers) == (1, 4)


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ({"max_records": 0}, "max_records must be at least 1"),
        ({"max_bytes": 0}, "max_bytes must be at least 1"),
        ({"max_wait_s": -0.1}, "max_wait_s must not be negative"),
        ({"capacity_records": 4_999}, "capacity_records .4999. must hold at least one batch"),
        ({"backlog_max_bytes": MIB}, "backlog_max_bytes .1048576. must hold at least one batch"),
        (
            {"low_watermark": 0.9},
            r"0 < low_watermark \(.+\) <= high_watermark \(.+\) <= 1",
        ),
        (
            {"low_watermark": 0.0},
            r"0 < low_watermark \(.+\) <= high_watermark \(.+\) <= 1",
        ),
        (
            {"high_watermark": 1.1},
            r"0 < low_watermark \(.+\) <= high_watermark \(.+\) <= 1",
        ),
        ({"min_workers": 0}, r"1 <= min_workers \(\d+\) <= max_workers \(\d+\)"),
        ({"min_workers": 5}, r"1 <= min_workers \(\d+\) <= max_workers \(\d+\)"),
        ({"attempt_timeout_s": 0.0}, "attempt_timeout_s must be positive"),
        ({"max_hung_workers": 0}, "max_hung_workers must be at least 1"),
        ({"poison_limit": 0.0}, "poison_limit must be above 0"),
        ({"poison_limit": 1.5}, "at most 1"),
    ],
)
def test_a_broken_rule_is_named(broken: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        PipelineSettings(**broken)


def test_all_broken_rules_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"max_wait_s.*; .*workers"):
        PipelineSettings(max_wait_s=-1, min_workers=9)
