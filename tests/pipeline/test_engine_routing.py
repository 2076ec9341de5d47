"""Offers: all or none, over every sink that the route names; what goes nowhere is counted."""

from __future__ import annotations

import pytest

from pipeline.engine import UNROUTED
from pipeline.errors import NoSink, Refused, Saturated, TooLarge
from pipeline.intake.router import Route
from pipeline.record import DEBUG, ERROR, INFO, WARN
from tests.pipeline.rig import Rig
from tests.pipeline.support import PATIENCE_S, ScriptedSink, record, records, spec


def test_each_sink_gets_the_types_tenants_and_levels_of_its_route(rig: Rig) -> None:
    logs, errors, alpha = ScriptedSink(), ScriptedSink(), ScriptedSink()
    rig.start(
        spec(logs, key="logs", route=Route(types=frozenset({"log"}))),
        spec(errors, key="errors", route=Route(min_severity=ERROR)),
        spec(alpha, key="alpha", route=Route(tenants=frozenset({"alpha"}))),
    )
    rig.offer([record("a1", severity=INFO), record("a2", severity=ERROR)], tenant="alpha")
    rig.offer([record("b1", severity=ERROR), record("b2", severity=WARN)], tenant="beta")
    rig.offer([record("e1", severity=INFO), record("e2", severity=ERROR)], type="event")
    assert rig.engine.flush(PATIENCE_S)
    assert set(logs.stored) == {"a1", "a2", "b1", "b2"}
    assert set(errors.stored) == {"a2", "b1", "e2"}
    assert set(alpha.stored) == {"a1", "a2"}


def test_the_ids_that_a_sink_sees_are_those_of_the_receipt(rig: Rig) -> None:
    sink = ScriptedSink()
    rig.start(spec(sink, route=Route(min_severity=ERROR), max_records=2))
    of = [record(str(n), severity=ERROR if n in (1, 3) else INFO) for n in range(4)]
    receipt = rig.offer(of)
    assert receipt.wait(PATIENCE_S)
    assert [r.id - receipt.id_base for r in sink.batches[0].records] == [1, 3]


def test_a_batch_mixes_requests_and_each_part_tells_its_own(rig: Rig) -> None:
    sink = ScriptedSink()
    engine = rig.start(spec(sink, max_records=4))
    for tenant in ("x", "y"):
        engine.offer(
            type="log",
            tenant=tenant,
            records=records(2),
            request_id=f"request-{tenant}",
            traceparent=f"trace-{tenant}",
        )
    sink.await_stored(4)
    (batch,) = sink.batches
    assert [(p.tenant, p.request_id, p.traceparent, p.count) for p in batch.parts] == [
        ("x", "request-x", "trace-x", 2),
        ("y", "request-y", "trace-y", 2),
    ]
    assert {p.received_us for p in batch.parts} == {rig.clock.time_us()}
    assert (batch.count, len(batch.records), batch.sink, batch.log_id) == (4, 4, "a", "log")


def test_room_is_reserved_in_every_required_sink_or_in_none(rig: Rig) -> None:
    rig.start(
        spec(ScriptedSink(), key="large", paused=True, capacity_records=1000, max_records=10),
        spec(ScriptedSink(), key="small", paused=True, capacity_records=10, max_records=10),
    )
    rig.offer(records(8))
    for _ in range(5):
        with pytest.raises(Saturated, match="'small'"):
            rig.offer(records(1))
    assert rig.pipeline("large")["held_records"] == 8
    assert rig.pipeline("large")["held_bytes"] == rig.pipeline("small")["held_bytes"]
    assert rig.row("large")["accepted"] == rig.row("small")["accepted"] == 8
    assert rig.pipeline("small")["refused"] == 5


def test_a_request_that_one_sink_could_never_hold_is_too_large_for_all(rig: Rig) -> None:
    rig.start(
        spec(ScriptedSink(), key="large", paused=True),
        spec(ScriptedSink(), key="small", paused=True, capacity_records=10, max_records=10),
    )
    with pytest.raises(TooLarge) as refused:
        rig.offer(records(11))
    assert "capacity_records=10" in refused.value.limit
    assert rig.pipeline("large")["held_records"] == 0


def test_without_a_sink_nothing_is_accepted(rig: Rig) -> None:
    rig.start()
    with pytest.raises(NoSink):
        rig.offer(records(1))
    assert isinstance(rig.engine.refusal("log", "t"), NoSink)
    rig.engine.configure([spec(ScriptedSink(), max_records=1)])
    assert rig.engine.refusal("log", "t") is None
    assert rig.offer(records(1)).wait(PATIENCE_S)
    rig.engine.configure([])
    with pytest.raises(NoSink):
        rig.offer(records(1))


def test_a_refusal_is_known_before_the_body_is_read(rig: Rig) -> None:
    rig.start(
        spec(ScriptedSink(), key="r", paused=True, capacity_records=10, max_records=1),
        spec(
            ScriptedSink(), key="o", paused=True, capacity_records=5, max_records=1, required=False
        ),
    )
    assert rig.engine.refusal("log", "t") is None
    rig.offer(records(8))
    refused = rig.engine.refusal("log", "t")
    assert isinstance(refused, Saturated)
    assert refused.retry_after_s >= 1
    assert rig.pipeline("r")["refused"] == 1
    assert rig.pipeline("r")["refusing"]


def test_refusals_have_a_word_and_a_time() -> None:
    assert {kind.reason for kind in (Refused, Saturated, NoSink, TooLarge)} == {
        "refused",
        "saturated",
        "no_sink",
        "too_large",
    }
    assert Refused("no").retry_after_s == 1


def test_records_that_no_sink_takes_are_counted_and_told_of(rig: Rig) -> None:
    rig.start(spec(ScriptedSink(), route=Route(types=frozenset({"event"}))))
    done = rig.offer(records(3), type="log")
    assert done.done
    row = rig.row(UNROUTED)
    assert (row["accepted"], row["dropped"]) == (3, {"unrouted": 3})
    (dropped,) = rig.signals.dropped
    assert (dropped.pipeline, dropped.tenant, dropped.reason) == (UNROUTED, "t", "unrouted")
    assert len(dropped.messages) == 3


def test_records_below_every_sinks_level_are_counted_too(rig: Rig) -> None:
    rig.start(
        spec(ScriptedSink(), key="warnings", route=Route(min_severity=WARN), max_records=1),
        spec(ScriptedSink(), key="errors", route=Route(min_severity=ERROR), max_records=1),
    )
    mixed = [record(f"{s}", severity=s) for s in (DEBUG, INFO, WARN, ERROR)]
    assert rig.offer(mixed).wait(PATIENCE_S)
    assert rig.row(UNROUTED)["dropped"] == {"unrouted": 2}
    assert rig.signals.dropped[0].messages == (str(DEBUG), str(INFO))
    assert rig.row("warnings")["accepted"] == 2


def test_an_empty_offer_is_done_and_leaves_no_trace(rig: Rig) -> None:
    rig.start(spec(ScriptedSink()))
    assert rig.offer([]).done
    assert rig.engine.stats()["ledger"] == []


def test_a_route_that_changes_counts_from_the_next_offer(rig: Rig) -> None:
    sink = ScriptedSink()
    rig.start(spec(sink, max_records=1, route=Route(tenants=frozenset({"x"}))))
    rig.offer(records(1), tenant="y")
    rig.engine.configure([spec(sink, max_records=1)])
    assert rig.offer(records(1), tenant="y").wait(PATIENCE_S)
    assert rig.row(tenant="y")["stored"] == 1


def test_the_routes_remembered_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.intake.routing.ROUTES_CACHED", 10)
    rig.start(spec(ScriptedSink()))
    for n in range(35):
        rig.offer(records(1), tenant=f"t{n}")
        assert len(rig.engine._routes) <= 10


def test_tenants_beyond_the_ledgers_bound_are_tallied_together(rig: Rig) -> None:
    rig.engine.journal.ledger._max = 5
    sink = ScriptedSink()
    rig.start(spec(sink, max_wait_s=3600))
    for n in range(20):
        rig.offer(records(2), tenant=f"t{n}")
    other = rig.row(tenant="(other)")
    assert (other["accepted"], other["in_flight"]) == (30, 30)
    assert rig.engine.flush(PATIENCE_S)
    other = rig.row(tenant="(other)")
    assert (other["stored"], other["in_flight"]) == (30, 0)


@pytest.mark.parametrize("started", [True, False])
def test_what_is_offered_before_the_start_is_delivered_after_it(rig: Rig, started: bool) -> None:
    sink = ScriptedSink()
    rig.engine.configure([spec(sink, max_records=1)])
    if started:
        rig.engine.start()
    done = rig.offer(records(1))
    if not started:
        assert rig.pipeline()["state"] == "new"
        assert not done.done
        rig.engine.start()
    assert done.wait(PATIENCE_S)
