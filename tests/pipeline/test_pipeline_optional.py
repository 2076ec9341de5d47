"""An optional sink: it never refuses, drops its oldest when full, and counts what it drops."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import Saturated
from pipeline.intake.router import Route
from pipeline.record import DEBUG, ERROR, INFO
from pipeline.spec import PipelineSpec
from tests.pipeline.rig import Rig
from tests.pipeline.support import PATIENCE_S, ScriptedSink, record, records, spec


def optional(sink: ScriptedSink, **settings: Any) -> PipelineSpec:
    defaults: dict[str, Any] = {"capacity_records": 10, "max_records": 10, "paused": True}
    return spec(sink, required=False, **{**defaults, **settings})


def test_a_full_optional_sink_drops_its_oldest_and_counts_them_by_tenant(rig: Rig) -> None:
    sink = ScriptedSink()
    rig.start(optional(sink))
    old, middle, new = records(4), records(4), records(5)
    rig.offer(old, tenant="old")
    rig.offer(middle, tenant="middle")
    rig.offer(new, tenant="new")
    assert rig.row(tenant="old")["dropped"] == {"backlog": 4}
    assert (rig.row(tenant="middle")["in_flight"], rig.row(tenant="new")["in_flight"]) == (4, 5)
    (dropped,) = rig.signals.dropped
    assert (dropped.tenant, dropped.reason) == ("old", "backlog")
    assert dropped.messages == tuple(r.message for r in old)
    rig.engine.configure([optional(sink, paused=False)])
    assert rig.engine.flush(PATIENCE_S)
    assert list(sink.stored) == [r.message for r in middle + new]
    assert rig.pipeline()["dropped"] == {"backlog": 4}


def test_as_many_of_the_oldest_go_as_the_newcomer_needs(rig: Rig) -> None:
    rig.start(optional(ScriptedSink()))
    for _ in range(10):
        rig.offer(records(1))
    rig.offer(records(7))
    row = rig.row()
    assert (row["dropped"], row["in_flight"]) == ({"backlog": 7}, 10)


def test_bytes_bound_an_optional_sink_as_well(rig: Rig) -> None:
    rig.start(optional(ScriptedSink(), backlog_max_bytes=3_000, max_bytes=1_000))
    for _ in range(9):
        rig.offer([record("x" * 900)])
    row, shown = rig.row(), rig.pipeline()
    assert row["in_flight"] == 3
    assert row["dropped"] == {"backlog": 6}
    assert shown["held_bytes"] <= 3_000


def test_what_can_never_fit_passes_by_and_drops_nobody_else(rig: Rig) -> None:
    rig.start(optional(ScriptedSink()))
    rig.offer(records(8))
    done = rig.offer(records(11))
    assert done.done, "nobody is owed anything"
    row = rig.row()
    assert (row["accepted"], row["dropped"], row["in_flight"]) == (19, {"backlog": 11}, 8)
    (dropped,) = rig.signals.dropped
    assert len(dropped.messages) == 11


def test_while_everything_is_being_written_the_newcomer_passes_by(rig: Rig) -> None:
    sink = rig.held_sink()
    rig.start(optional(sink, paused=False))
    rig.offer(records(10))
    sink.await_writes(1)
    rig.offer(records(3))
    row = rig.row()
    assert (row["in_flight"], row["dropped"]) == (10, {"backlog": 3})
    assert ("(unrouted)", "t") not in {
        (r["sink"], r["tenant"])
        for r in rig.engine.stats()["ledger"]  # type: ignore[attr-defined]
    }


def test_what_a_full_sink_sheds_is_counted_once(rig: Rig) -> None:
    held = rig.held_sink()
    marks = {"shed_watermark": 0.5, "shed_below": "INFO", "paused": False}
    rig.start(optional(held, key="full", **marks), spec(ScriptedSink(), key="other"))
    rig.offer(records(10, severity=ERROR))
    held.await_writes(1)
    rig.offer(records(3, severity=DEBUG) + records(2, severity=ERROR))
    row = rig.row(sink="full")
    assert (row["accepted"], row["dropped"]) == (15, {"shed": 3, "backlog": 2})
    assert {(one.reason, len(one.messages)) for one in rig.signals.dropped} == {
        ("shed", 3),
        ("backlog", 2),
    }


def test_a_sink_that_takes_only_errors_drops_only_errors(rig: Rig) -> None:
    rig.start(
        optional(
            ScriptedSink(), capacity_records=2, max_records=2, route=Route(min_severity=ERROR)
        ),
        spec(ScriptedSink(), key="all", max_records=1),
    )
    mixed = [record("i", severity=INFO), *(record(f"e{n}", severity=ERROR) for n in range(3))]
    rig.offer(mixed)
    row = rig.row()
    assert (row["accepted"], row["dropped"]) == (3, {"backlog": 3})
    assert rig.signals.dropped[0].messages == ("e0", "e1", "e2")


def test_a_refusing_required_sink_costs_an_optional_one_nothing(rig: Rig) -> None:
    rig.start(
        optional(ScriptedSink(), key="optional"),
        spec(ScriptedSink(), key="required", paused=True, capacity_records=10, max_records=1),
    )
    rig.offer(records(9))
    with pytest.raises(Saturated):
        rig.offer(records(9))
    assert rig.row("optional")["accepted"] == 9
    assert rig.row("optional")["dropped"] == {}


def test_a_dead_optional_sink_stalls_nobody(rig: Rig) -> None:
    good = ScriptedSink()
    rig.start(
        optional(ScriptedSink(always=OSError("dead")), key="dead", paused=False),
        spec(good, key="good", max_records=5),
    )
    for _ in range(100):
        assert rig.offer(records(5)).wait(PATIENCE_S)
    assert sum(good.stored.values()) == 500
    row = rig.row("dead")
    assert row["accepted"] == 500
    assert row["in_flight"] <= 10
    assert row["dropped"]["backlog"] == 500 - row["in_flight"]
