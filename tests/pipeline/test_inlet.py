"""The inlet: single records taken in together, none lost, none twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from pipeline.errors import Draining, Saturated, TooLarge
from pipeline.intake.inlet import Inlet
from pipeline.record import Record
from tests.pipeline.rig import Rig
from tests.pipeline.support import ScriptedSink, record, records, spec


class Door:
    """Takes offers, or has no room."""

    def __init__(self) -> None:
        self.offers: list[list[Record]] = []
        self.full = False
        self.largest = 1_000
        self.dropped: list[tuple[list[Record], str]] = []

    def __call__(self, of: Sequence[Record]) -> None:
        if self.full:
            raise Saturated("no room")
        if len(of) > self.largest or any(one.message == "huge" for one in of):
            raise TooLarge("never", limit="capacity_records")
        self.offers.append(list(of))

    def drop(self, of: Sequence[Record], reason: str, why: str) -> None:
        self.dropped.append((list(of), reason))

    def inlet(self, *, max_records: int = 3, wake: Callable[[], object] = int) -> Inlet:
        return Inlet(offer=self, drop=self.drop, max_records=max_records, wake=wake)


def test_records_are_offered_once_there_are_enough() -> None:
    door = Door()
    inlet = door.inlet()
    of = records(7)
    for one in of:
        inlet.put(one)
    assert door.offers == [of[:3], of[3:6]]
    assert inlet.held == 1
    inlet.flush()
    assert door.offers[-1] == of[6:]


def test_without_room_it_holds_so_many_and_no_more() -> None:
    door = Door()
    door.full = True
    inlet = door.inlet()
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


def test_what_was_refused_keeps_its_order() -> None:
    door = Door()
    inlet = door.inlet(max_records=8)
    of = records(6)
    for one in of[:4]:
        inlet.put(one)
    door.full = True
    with pytest.raises(Saturated):
        inlet.flush()
    for one in of[4:]:
        inlet.put(one)
    door.full = False
    inlet.flush()
    assert [one for offer in door.offers for one in offer] == of


def test_a_refused_inlet_is_tried_again_without_anybodys_help(rig: Rig) -> None:
    sink = rig.held_sink()
    engine = rig.start(
        spec(sink, max_records=1, max_wait_s=0.0, capacity_records=2, high_watermark=1.0,
             low_watermark=0.5)
    )  # fmt: skip
    rig.offer(records(2))
    inlet = engine.inlet(type="log", tenant="t")
    inlet.put(record("later"))
    rig.clock.await_waiting(1)
    rig.clock.advance(1.0)
    assert inlet.held == 1
    sink.let_go()
    sink.await_stored(2)
    while inlet.held:
        rig.clock.advance(0.1)
    sink.await_stored(3)


def test_a_closed_inlet_is_emptied_and_forgotten(rig: Rig) -> None:
    sink = ScriptedSink()
    engine = rig.start(spec(sink, max_records=1))
    inlet = engine.inlet(type="log", tenant="t")
    inlet.put(record("a"))
    inlet.close()
    while not inlet.done:
        rig.clock.advance(0.1)
    engine.inlet(type="log", tenant="t")
    assert len(engine._inlets._inlets) == 1


def test_an_inlet_needs_room_for_one() -> None:
    with pytest.raises(ValueError, match="max_records must be at least 1"):
        Door().inlet(max_records=0)


def test_whoever_flushes_what_stays_is_called_for_every_record() -> None:
    """Two threads that put at the same moment both see two records: none may rely on the other."""
    calls: list[int] = []
    inlet = Door().inlet(wake=lambda: calls.append(1))
    for one in records(2):
        inlet.put(one)
    assert len(calls) == 2


def test_a_record_put_while_the_inlet_closes_is_taken_back_or_kept() -> None:
    door = Door()
    inlet = door.inlet()
    late = record("late")

    class Closing:
        """Closes the inlet between the look and the putting."""

        looked = False

        def __call__(self) -> bool:
            was, self.looked = self.looked, True
            return was

    inlet._is_closed = Closing()  # type: ignore[method-assign]
    with pytest.raises(Draining):
        inlet.put(late)
    assert inlet.give_up() == []


def test_more_than_a_sink_may_hold_is_offered_in_pieces() -> None:
    door = Door()
    door.largest = 2
    inlet = door.inlet(max_records=8)
    of = records(7)
    for one in of:
        inlet.put(one)
    inlet.flush()
    assert [one for offer in door.offers for one in offer] == of
    assert max(map(len, door.offers)) <= 2


def test_a_record_that_never_fits_is_dropped_with_a_reason_and_holds_nothing_up() -> None:
    door = Door()
    inlet = door.inlet(max_records=8)
    of = [record("a"), record("huge"), record("b")]
    for one in of:
        inlet.put(one)
    inlet.flush()
    assert [one.message for offer in door.offers for one in offer] == ["a", "b"]
    assert door.dropped == [([of[1]], "too_large")]
    assert inlet.held == 0


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
