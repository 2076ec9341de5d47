"""What a stop lost: what is neither stored nor in a log on the disk."""

from __future__ import annotations

from typing import Any

import pytest

from collector_site.farewell import lost_records
from sinks.closing import closed, uneven
from sinks.report import summary

ROW: dict[str, Any] = {
    "sink": "database", "tenant": "t", "accepted": 10, "redriven": 1, "stored": 5,
    "already_stored": 1, "dead_lettered": 1, "dropped": {"backlog": 1}, "in_flight": 3,
    "imbalance": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("state", "changes", "lost"),
    [
        ("ok", {}, 0),
        ("full", {}, 0),
        ("memory", {}, 3),
        ("ok", {"dropped": {"backlog": 1, "shutdown": 2}, "in_flight": 1}, 2),
        ("ok", {"imbalance": 4}, 4),
    ],
)
def test_what_is_safe_in_the_log_is_not_lost(
    state: str, changes: dict[str, Any], lost: int
) -> None:
    assert lost_records({"log": {"state": state}, "ledger": [{**ROW, **changes}]}) == lost


def test_nothing_is_lost_where_nothing_was_taken() -> None:
    assert lost_records({}) == 0


def test_a_closed_ledger_adds_up_and_closes_once() -> None:
    stats = closed({"log_id": "l", "log": {"state": "ok"}, "ledger": [ROW]})
    (row,) = stats["ledger"]
    assert (row["in_flight"], row["left_in_log"], uneven(row)) == (0, 3, 0)
    assert closed(stats) == stats
    assert summary(stats) == (
        "enqueued 11 = flushed_ok 6 + flushed_fail 2 + dropped_on_shutdown 0 + left_in_log 3: "
        "balanced"
    )


def test_a_ledger_that_does_not_add_up_says_by_how_much() -> None:
    stats = {"log_id": "l", "log": {"state": "ok"}, "ledger": [{**ROW, "stored": 4}]}
    assert summary(stats).endswith("OUT OF BALANCE BY 1")
