"""Why a pipeline refuses: the narrowest place, and a remedy that fits it."""

from __future__ import annotations

from typing import Any

import pytest

from control.admin.pipelines import PipelineView
from control.admin.pressure import narrowest, refusal
from control.admin.samples import PipelineHistory
from tests.admin.cast import open_breaker, pipeline_stats

FULL = {
    "refusing": True,
    "held_records": 330_000,
    "workers": 4,
    "busy_workers": 4,
    "min_workers": 1,
    "max_workers": 4,
    "write_limit": 4,
    "batch_limit": 5_000,
    "high_watermark": 0.8,
    "low_watermark": 0.6,
}


def view(*others: dict[str, Any], **changes: Any) -> PipelineView:
    one = PipelineView(key="k", name="db", in_rate=9_000.0, out_rate=4_000.0)
    one.add_part(pipeline_stats(**{**FULL, **changes}))
    for other in others:
        one.add_part(pipeline_stats(**other))
    return one


@pytest.mark.parametrize(
    ("changes", "cause", "remedy"),
    [
        ({}, "All 4 workers are busy, and there may be no more", "Raise max_workers"),
        ({"max_workers": 8}, "the scaler adds more, up to 8", "raise min_workers"),
        (
            {"busy_workers": 2, "write_limit": 2},
            "The sink slows down when it gets more than 2 batches at once",
            "Find what bounds the sink",
        ),
        ({"busy_workers": 1}, "1 of its 4 workers are busy", "Raise capacity_records"),
        (
            {"busy_workers": 1, "held_records": 10, "held_bytes": 120 * 1024 * 1024},
            "1 of its 4 workers are busy",
            "Raise backlog_max_bytes",
        ),
        (
            {"busy_workers": 0, "capacity_records": 6_000, "batch_limit": 5_600},
            "A batch closes at 5,600 records, and the queue refuses from 4,800 on",
            "Lower max_records",
        ),
        ({"workers": 1, "busy_workers": 1, "max_workers": 1}, "Its one worker is busy", "Raise"),
        ({"paused": True}, "It is paused", "Resume the sink."),
        ({"breaker": open_breaker()}, "Its breaker is open", "Repair what the sink writes to"),
        ({"state": "failing"}, "Its writes fail", "Repair the sink"),
        ({"state": "stuck"}, "Its workers hang", "restart the process"),
        ({"misconfigured": "no such table"}, "its options are refused", "Correct the sink"),
    ],
)
def test_the_narrowest_place_and_its_remedy(
    changes: dict[str, Any], cause: str, remedy: str
) -> None:
    found = narrowest(view(**changes))
    assert cause in found.cause
    assert remedy in found.remedy


def test_larger_batches_are_advised_only_where_batches_are_full() -> None:
    one = view()
    one.history = PipelineHistory(key="k", name="db", per_batch=[4_990.0, None])
    assert "max_records" in narrowest(one).remedy
    one.history = PipelineHistory(key="k", name="db", per_batch=[12.0])
    assert "max_records" not in narrowest(one).remedy


def test_the_pace_is_told() -> None:
    told = narrowest(view()).cause
    assert "9,000 records/s come in and 4,000 are stored, a write takes 18 ms." in told


def test_the_marks_are_told_with_the_refusal() -> None:
    problem = refusal(view(), "")
    assert problem is not None
    assert "82 % full (330 k of 400 k records)" in problem.cause
    assert "It refuses from 80 % on, and takes records again at 60 %." in problem.cause


def test_bytes_are_named_where_they_are_what_is_scarce() -> None:
    problem = refusal(view(held_records=10, held_bytes=120 * 1024 * 1024), "")
    assert problem is not None
    assert "94 % full (120 MiB of 128 MiB)" in problem.cause


def test_a_tenant_beyond_its_share_is_no_full_queue() -> None:
    one = view(refusing=False, waiting_tenants=1)
    one.refused_rate = 12.0
    problem = refusal(one, "")
    assert problem is not None
    assert problem.title == "db refuses 12 requests/s"
    assert "one tenant waits for room" in problem.cause


def test_the_process_that_is_full_is_looked_at() -> None:
    idle = {"held_records": 0, "workers": 1, "busy_workers": 0, "max_workers": 4}
    one = view(idle, idle)
    one.parts.reverse()
    assert "All 4 workers are busy" in narrowest(one).cause


def test_nothing_is_said_where_nothing_is_refused() -> None:
    assert refusal(view(refusing=False), "") is None
    assert refusal(view(required=False), "") is None


def test_a_queue_that_was_full_between_two_samples_is_told_so() -> None:
    history = PipelineHistory(key="k", name="db", peak=[0.9, None, 0.3, 0.81, 0.3, None])
    now = view(held_records=80_000, refusing=False)
    now.refused_rate, now.history = 8.5, history
    problem = refusal(now, "")
    assert problem is not None
    assert "20 % full (80 k of 400 k records) now, and was 81 % full moments ago" in problem.cause
    assert "It refuses from 80 % on" in problem.cause
    falling = view(held_records=260_000)
    falling.history = history
    problem = refusal(falling, "")
    assert problem is not None
    assert "65 % full (260 k of 400 k records), and was 81 % full moments ago;" in problem.cause
    full = view()
    full.history = history
    problem = refusal(full, "")
    assert problem is not None
    assert "moments ago" not in problem.cause


def test_what_the_sink_caps_is_not_advised() -> None:
    one = view(workers=1, busy_workers=1, max_workers=1, capped=["max_workers"])
    one.history = PipelineHistory(key="k", name="db", per_batch=[4_990.0])
    found = narrowest(one)
    assert "the sink takes no more than one write at a time" in found.cause
    assert "Raise max_workers" not in found.remedy
    assert "More workers would not help" in found.remedy
    assert "Raise max_records" in found.remedy
    both = view(workers=1, busy_workers=1, max_workers=1, capped=["max_records", "max_workers"])
    both.history = one.history
    assert "Raise" not in narrowest(both).remedy
