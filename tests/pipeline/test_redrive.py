"""Redriving dead letters: the same batch however often it is sent; no letter is lost."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.deadletter import DeadLetter
from pipeline.engine import Engine
from pipeline.errors import Draining, PartialFailure, PermanentError, RetryableError
from pipeline.record import Batch
from pipeline.redrive import Redriven, record_of
from pipeline.sink import Written
from tests.pipeline.rig import Rig, imbalances, stats_of
from tests.pipeline.support import PATIENCE_S, ScriptedSink, records, spec


class Box:
    """Keeps dead letters in memory; a letter of a redrive must never come here."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []

    def put(self, letters: Sequence[DeadLetter]) -> None:
        self.letters += letters


class Answer:
    """What became of one redriven batch."""

    def __init__(self) -> None:
        self.results: list[Redriven] = []
        self._come = threading.Event()

    def __call__(self, result: Redriven) -> None:
        self.results.append(result)
        self._come.set()

    @property
    def result(self) -> Redriven:
        assert self._come.wait(PATIENCE_S), "no answer came"
        (result,) = self.results
        return result


def letters(count: int, *, tenant: str = "t", sink: str = "a") -> list[DeadLetter]:
    return [
        DeadLetter(
            sink=sink,
            sink_name=sink,
            record_id=1000 + number,
            type="log",
            tenant=tenant,
            request_id="r",
            traceparent="",
            received_us=5,
            timestamp_us=one.timestamp_us,
            severity=one.severity,
            service=one.service,
            message=one.message,
            trace_id="",
            span_id="",
            payload=one.payload,
            reason="permanent",
            error="it was refused",
            attempts=1,
            first_tried_us=1,
            last_tried_us=2,
            batch_id="log-1",
        )
        for number, one in enumerate(records(count))
    ]


def redrive(engine: Engine, of: list[DeadLetter], *, number: int = 1, **options: Any) -> Answer:
    answer = Answer()
    engine.redrive(
        options.get("sink", "a"), origin="redrive-1", number=number, letters=of, on_done=answer
    )
    return answer


def test_letters_go_to_their_sink_as_the_batch_that_they_are_named(rig: Rig) -> None:
    sink = ScriptedSink()
    engine = rig.start(spec(sink))
    of = letters(3) + letters(2, tenant="u")
    assert redrive(engine, of, number=7).result == Redriven(stored=5)
    (batch,) = sink.batches
    assert (batch.log_id, batch.number, batch.reason) == ("redrive-1", 7, "redrive")
    assert batch.records == [record_of(one) for one in of]
    assert [(part.tenant, part.count) for part in batch.parts] == [("t", 3), ("u", 2)]
    row = rig.row()
    assert (row["accepted"], row["redriven"], row["stored"]) == (0, 3, 3)
    assert imbalances(engine) == {}


def test_what_an_earlier_attempt_stored_is_told_as_such(rig: Rig) -> None:
    sink = ScriptedSink(lambda batch: Written(stored=1, already_stored=2))
    engine = rig.start(spec(sink))
    assert redrive(engine, letters(3)).result == Redriven(stored=1, already_stored=2)
    assert imbalances(engine) == {}


def test_a_failure_is_retried_as_the_same_batch(rig: Rig) -> None:
    sink = ScriptedSink(RetryableError("down"), RetryableError("down"))
    engine = rig.start(spec(sink))
    answer = redrive(engine, letters(2), number=3)
    for count in (1, 2):
        rig.signals.wait_for(lambda s, count=count: len(s.retries) == count)  # type: ignore[misc]
        rig.clock.await_waiting(1)
        rig.clock.advance(2.0)
    assert answer.result.stored == 2
    assert {(one.number, one.attempt) for one in rig.signals.attempts} == {(3, 1), (3, 2), (3, 3)}


def test_letters_that_are_refused_again_go_back_with_the_new_reason(rig: Rig) -> None:
    box = Box()
    sink = ScriptedSink(PartialFailure({1: "still too long"}))
    engine = rig.start(_with_box(sink, box))
    result = redrive(engine, letters(3)).result
    assert (result.stored, result.split, result.given_up) == (2, False, False)
    (refused,) = result.refused
    assert (refused.record_id, refused.error) == (1001, "still too long")
    assert refused.origin == "redrive-1-1"
    assert box.letters == [], "whoever asked keeps them"
    row = rig.row()
    assert (row["redriven"], row["stored"], row["dead_lettered"]) == (3, 2, 1)
    assert imbalances(engine) == {}


def test_one_that_is_at_fault_and_not_named_has_its_halves_sent(rig: Rig) -> None:
    def refuses(batch: Batch) -> None:
        if any(one.id == 1002 for one in batch.records):
            raise PermanentError("something is wrong")

    sink = ScriptedSink(always=refuses)
    engine = rig.start(_with_box(sink, Box()))
    of = letters(4)
    assert redrive(engine, of, number=1).result == Redriven(split=True)
    assert redrive(engine, of[:2], number=2).result == Redriven(stored=2)
    assert redrive(engine, of[2:], number=3).result == Redriven(split=True)
    assert redrive(engine, of[3:], number=4).result == Redriven(stored=1)
    last = redrive(engine, of[2:3], number=5).result
    assert [one.record_id for one in last.refused] == [1002]
    assert rig.row()["redriven"] == 4, "a batch that is taken apart has not come in"
    assert imbalances(engine) == {}


def test_a_stop_gives_up_what_waits_and_what_fails(rig: Rig) -> None:
    held = rig.held_sink()
    engine = rig.start(spec(held))
    under_way = redrive(engine, letters(2), number=1)
    held.await_writes(1)
    waiting = redrive(engine, letters(2), number=2)
    stopping = threading.Thread(target=engine.stop, args=(0.0,), daemon=True)
    stopping.start()
    assert under_way.result.given_up
    assert waiting.result.given_up
    stopping.join(PATIENCE_S)
    assert not stopping.is_alive()
    assert imbalances(engine) == {}
    with pytest.raises(Draining):
        redrive(engine, letters(1))


def test_a_sink_that_goes_away_gives_up_and_an_unknown_one_is_an_error(rig: Rig) -> None:
    sink = ScriptedSink(always=RetryableError("down"))
    engine = rig.start(spec(sink))
    answer = redrive(engine, letters(2))
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    (pipeline,) = engine.pipelines
    pipeline.halt()
    pipeline.end(1.0)
    assert answer.result == Redriven(given_up=True)
    late = redrive(engine, letters(2))
    assert late.result == Redriven(given_up=True)
    with pytest.raises(KeyError):
        redrive(engine, letters(1), sink="nobody")


def test_it_takes_no_room_from_what_comes_in(rig: Rig) -> None:
    held = rig.held_sink()
    engine = rig.start(spec(held))
    redrive(engine, letters(5))
    held.await_writes(1)
    (row,) = stats_of(engine)["pipelines"]
    assert (row["held_records"], row["in_flight"]) == (0, 0)
    held.let_go()


def _with_box(sink: ScriptedSink, box: Box) -> Any:
    return dataclasses.replace(spec(sink), dead_letters=box)
