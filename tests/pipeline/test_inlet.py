"""The inlet: single records taken in together, none lost, none twice."""

from __future__ import annotations

import threading

import pytest

from pipeline.errors import Draining, Saturated
from pipeline.intake.inlet import Inlet
from pipeline.record import Record
from tests.pipeline.rig import Rig
from tests.pipeline.support import ScriptedSink, record, records, spec


class Door:
    """Takes offers, or has no room."""

    def __init__(self) -> None:
        self.offers: list[list[Record]] = []
        self.full = False

    def __call__(self, of: list[Record]) -> None:
        if self.full:
            raise Saturated("no room")
        self.offers.append(of)


def test_records_are_offered_once_there_are_enough() -> None:
    door, calls = Door(), []
    inlet = Inlet(offer=door, max_records=3, wake=lambda: calls.append(1))  # type: ignore[arg-type]
    of = records(7)
    for one in of:
        inlet.put(one)
    assert door.offers == [of[:3], of[3:6]]
    assert inlet.held == 1
    inlet.flush()
    assert door.offers[-1] == of[6:]
    assert len(calls) == 3, "whoever flushes what stays is called when an empty one gets something"


def test_without_room_it_holds_so_many_and_no_more() -> None:
    door = Door()
    door.full = True
    inlet = Inlet(offer=door, max_records=3, wake=lambda: None)  # type: ignore[arg-type]
    of = records(4)
    for one in of[:3]:
        inlet.put(one)
    with pytest.raises(Saturated):
        inlet.put(of[3])
    assert inlet.held == 3
    door.full = False
    inlet.put(of[3])
    assert door.offers == [of[:3]]
    assert inlet.held == 1


def test_an_inlet_needs_room_for_one() -> None:
    with pytest.raises(ValueError, match="max_records must be at least 1"):
        Inlet(offer=Door(), max_records=0, wake=lambda: None)  # type: ignore[arg-type]


def test_what_nobody_fills_up_is_offered_after_a_moment(rig: Rig) -> None:
    sink = ScriptedSink()
    engine = rig.start(spec(sink, max_records=1))
    inlet = engine.inlet(type="log", tenant="t")
    inlet.put(record("a"))
    rig.clock.await_waiting(1)
    while engine.inlet_records:
        rig.clock.advance(0.01)
    sink.await_stored(1)
    assert [one.message for batch in sink.batches for one in batch.records] == ["a"]


def test_a_stop_takes_in_what_an_inlet_holds_and_then_refuses(rig: Rig) -> None:
    sink = ScriptedSink()
    engine = rig.start(spec(sink))
    inlet = engine.inlet(type="log", tenant="t")
    for one in records(10):
        inlet.put(one)
    assert engine.stop(5.0)
    assert sum(batch.count for batch in sink.batches) == 10
    with pytest.raises(Draining):
        inlet.put(record("late"))
    assert engine.inlet(type="log", tenant="t").held == 0
    with pytest.raises(Draining):
        engine.inlet(type="log", tenant="t").put(record("later"))


@pytest.mark.concurrency
def test_many_threads_put_and_every_record_arrives_once(rig: Rig) -> None:
    sink = ScriptedSink()
    engine = rig.start(spec(sink))
    inlet = engine.inlet(type="log", tenant="t", max_records=7)
    of = records(800)

    def put(mine: list[Record]) -> None:
        for one in mine:
            inlet.put(one)

    threads = [threading.Thread(target=put, args=(of[n::8],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert engine.stop(20.0)
    stored = [one.message for batch in sink.batches for one in batch.records]
    assert sorted(stored) == sorted(one.message for one in of)
