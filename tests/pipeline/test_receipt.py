"""Receipts: waited for, called back, asked to hurry; done when every required sink has settled."""

from __future__ import annotations

import threading

import pytest

from pipeline.errors import PermanentError
from pipeline.intake.router import Route
from pipeline.receipt import Receipt
from pipeline.record import ERROR, INFO
from tests.pipeline.rig import Rig, run_all
from tests.pipeline.support import PATIENCE_S, ScriptedSink, record, records, spec


def receipt(owed: int) -> Receipt:
    return Receipt(count=1, owed=owed, request_flush=lambda one: None)


def test_a_receipt_is_done_when_each_required_sink_has_settled() -> None:
    one = receipt(2)
    one.settled_one()
    assert not one.done
    assert not one.wait(0)
    assert not one.wait(0)
    one.settled_one(unstored=3)
    assert one.done
    assert one.wait(0)
    assert one.unstored == 3


def test_a_receipt_that_owes_nothing_is_done_at_once() -> None:
    assert receipt(0).wait()


def test_callbacks_given_before_and_after_are_each_called_once() -> None:
    one = receipt(1)
    called: list[tuple[str, Receipt]] = []
    one.add_done_callback(lambda got: called.append(("before", got)))
    one.add_done_callback(lambda got: called.append(("second", got)))
    assert called == []
    one.settled_one()
    one.add_done_callback(lambda got: called.append(("after", got)))
    assert called == [("before", one), ("second", one), ("after", one)]


def test_a_callback_that_raises_harms_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    one = receipt(1)
    called: list[Receipt] = []

    def fail(got: Receipt) -> None:
        raise ValueError("the view has gone")

    one.add_done_callback(fail)
    one.add_done_callback(called.append)
    one.settled_one()
    one.add_done_callback(fail)
    assert called == [one]
    assert caplog.text.count("a receipt's callback failed") == 2


@pytest.mark.concurrency
def test_threads_that_wait_are_all_woken_however_they_race_with_the_settlement() -> None:
    for _ in range(100):
        one = receipt(1)
        called: list[Receipt] = []

        def wait(one: Receipt = one) -> None:
            assert one.wait(PATIENCE_S)

        def call(one: Receipt = one, called: list[Receipt] = called) -> None:
            one.add_done_callback(called.append)

        run_all([wait, call, one.settled_one])
        assert called == [one]


def test_the_offer_is_done_when_its_batch_is_stored(rig: Rig) -> None:
    rig.start(spec(ScriptedSink(), max_records=3))
    first = rig.offer(records(2))
    assert (first.count, first.done) == (2, False)
    rig.offer(records(1))
    assert first.wait(PATIENCE_S)
    assert first.unstored == 0


def test_a_waiter_asks_its_batch_to_close_now(rig: Rig) -> None:
    rig.start(spec(ScriptedSink(), max_wait_s=3600))
    waited = rig.offer(records(2))
    waited.request_flush()
    assert waited.wait(PATIENCE_S)
    assert rig.signals.closed[0].reason == "flush"
    waited.request_flush()  # done already: asks nobody


def test_the_offer_waits_for_every_required_sink_and_for_no_optional_one(rig: Rig) -> None:
    slow, dead = rig.held_sink(), rig.held_sink()
    rig.start(
        spec(ScriptedSink(), key="fast", max_records=1),
        spec(slow, key="slow", max_records=1),
        spec(dead, key="dead", max_records=1, required=False),
    )
    one = rig.offer(records(1))
    rig.signals.wait_for(lambda s: any(got.sink == "fast" for got in s.settled))
    slow.await_writes(1)
    dead.await_writes(1)
    assert not one.done
    slow.let_go()
    assert one.wait(PATIENCE_S)


def test_an_offer_to_optional_sinks_only_owes_nothing(rig: Rig) -> None:
    rig.start(spec(rig.held_sink(), required=False))
    assert rig.offer(records(1)).done


def test_a_split_offer_is_done_with_its_last_batch(rig: Rig) -> None:
    rig.start(spec(ScriptedSink(), max_records=10, max_wait_s=3600))
    done = threading.Event()
    one = rig.offer(records(25))
    one.add_done_callback(lambda got: done.set())
    rig.signals.wait_for(lambda s: len(s.settled) == 2)
    assert not done.is_set()
    rig.engine.flush(0)
    assert done.wait(PATIENCE_S)


def test_a_receipt_tells_how_many_records_a_required_sink_refused(rig: Rig) -> None:
    rig.start(
        spec(ScriptedSink(always=PermanentError("bad")), key="strict", max_records=4),
        spec(ScriptedSink(), key="lax", max_records=4),
    )
    one = rig.offer(records(4))
    assert one.wait(PATIENCE_S)
    assert one.unstored == 4


def test_a_receipt_tells_what_a_stop_left_behind(rig: Rig) -> None:
    rig.start(spec(ScriptedSink(), paused=True))
    one = rig.offer(records(3))
    rig.engine.stop(0)
    assert one.done
    assert one.unstored == 3


def test_what_no_required_sink_takes_is_unstored_as_well_as_what_one_refuses(rig: Rig) -> None:
    rig.start(
        spec(
            ScriptedSink(always=PermanentError("bad")),
            route=Route(min_severity=ERROR),
            max_records=1,
        ),
    )
    one = rig.offer([record(severity=INFO), record(severity=ERROR)])
    assert one.wait(PATIENCE_S)
    assert one.unstored == 2
