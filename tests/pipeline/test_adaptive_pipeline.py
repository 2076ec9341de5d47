"""A whole pipeline that finds its batch size and its writes at once, on a fake clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from pipeline.batching.adaptive import AdaptiveSettings
from pipeline.delivery.breaker import BreakerSettings
from pipeline.delivery.consumer import RECOVER_S
from pipeline.delivery.retry import RetryPolicy
from pipeline.delivery.watchdog import GRACE_S
from pipeline.errors import PermanentError, RetryableError, SinkFault
from pipeline.record import Batch
from pipeline.settings import PipelineSettings
from pipeline.spec import PipelineSpec
from tests.pipeline.rig import Rig
from tests.pipeline.support import HeldSink, ScriptedSink, records, spec

SIZE = AdaptiveSettings(batch=True)
WRITES = AdaptiveSettings(concurrency=True)
BOTH = AdaptiveSettings(batch=True, concurrency=True)


def taking(rig: Rig, seconds: float) -> Callable[[Batch], None]:
    """A step of a sink that takes so long for each batch, by the engine's clock."""

    def step(batch: Batch) -> None:
        rig.clock.advance(seconds)

    return step


def changed(spec: PipelineSpec, **settings: object) -> PipelineSpec:
    new: PipelineSettings = dataclasses.replace(spec.settings, **settings)  # type: ignore[arg-type]
    return dataclasses.replace(spec, settings=new)


def store(rig: Rig, sink: ScriptedSink, count: int) -> None:
    """Offer so many records and wait until they are stored."""
    before = rig.signals.stored
    rig.offer(records(count))
    rig.signals.wait_for(lambda s: s.stored >= before + count)


def test_it_is_off_unless_set(rig: Rig) -> None:
    sink = ScriptedSink()
    rig.start(spec(sink, max_records=500, max_workers=3))
    for _ in range(20):
        store(rig, sink, 500)
    figures = rig.pipeline()
    assert (figures["batch_limit"], figures["write_limit"]) == (500, 3)
    assert {len(one) for one in sink.messages} == {500}


def test_batches_become_larger_while_they_are_full_and_quick(rig: Rig) -> None:
    sink = ScriptedSink(always=taking(rig, 0.05))
    rig.start(spec(sink, adaptive=SIZE, max_records=500))
    assert rig.pipeline()["batch_limit"] == 100
    store(rig, sink, 20_000)
    seen = [one.count for one in sink.batches]
    assert seen[:10] == [100, 100, 100, 100, 125, 125, 125, 125, 156, 156]
    assert rig.pipeline()["batch_limit"] > 500, "the fixed size is no bound"
    assert rig.row()["stored"] == 20_000


def test_batches_stay_where_they_take_half_of_their_deadline(rig: Rig) -> None:
    sink = ScriptedSink(always=taking(rig, 0.6))
    rig.start(spec(sink, adaptive=SIZE))
    store(rig, sink, 2_000)
    assert {one.count for one in sink.batches} == {100}


def test_half_empty_batches_make_it_smaller_but_those_that_were_asked_for_do_not(
    rig: Rig,
) -> None:
    sink = ScriptedSink()
    engine = rig.start(spec(sink, adaptive=SIZE, max_wait_s=0.0))
    for _ in range(8):
        store(rig, sink, 20)
    assert rig.pipeline()["batch_limit"] == 76  # 100, 87, 76
    engine.configure([spec(sink, adaptive=SIZE, max_wait_s=1000.0)])
    for n in range(1, 9):
        rig.offer(records(20))
        engine.flush(0.0)
        rig.signals.wait_for(lambda s, n=n: s.stored == 160 + 20 * n)  # type: ignore[misc]
    assert {one.reason for one in rig.signals.closed[8:]} == {"flush"}
    assert rig.pipeline()["batch_limit"] == 76


def test_an_error_of_the_sink_makes_batches_smaller_and_one_of_a_record_does_not(
    rig: Rig,
) -> None:
    sink = ScriptedSink(PermanentError("not this one"), None, None)
    rig.start(spec(sink, adaptive=SIZE))
    rig.offer(records(2))
    rig.clock.await_waiting(1)
    rig.clock.advance(1.0)
    rig.signals.wait_for(lambda s: s.stored == 2)
    assert rig.pipeline()["batch_limit"] == 100

    failing = ScriptedSink(RetryableError("busy"))
    rig.engine.configure([spec(failing, adaptive=SIZE, fingerprint="2")])
    rig.offer(records(100))
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    assert rig.pipeline()["batch_limit"] == 87


def test_a_missing_table_is_no_matter_of_size_or_number(rig: Rig) -> None:
    sink = ScriptedSink(SinkFault("no such table"))
    rig.start(spec(sink, adaptive=BOTH, max_workers=2))
    rig.offer(records(100))
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    assert rig.pipeline()["batch_limit"] == 100


def test_probes_of_an_open_breaker_teach_nothing(rig: Rig) -> None:
    sink = ScriptedSink(*[RetryableError("down")] * 6)
    breaker = BreakerSettings(consecutive=1, open_s=10.0)
    rig.start(
        spec(sink, adaptive=SIZE, breaker=breaker, retry=RetryPolicy(base_s=0.01, cap_s=0.01))
    )
    rig.offer(records(100))
    for tries in range(1, 6):
        rig.signals.wait_for(lambda s, n=tries: len(s.retries) == n)  # type: ignore[misc]
        assert rig.pipeline()["batch_limit"] == 87
        rig.clock.await_waiting(1)
        rig.clock.advance(400.0)


def test_one_write_at_once_to_begin_with_however_many_workers_there_are(rig: Rig) -> None:
    sink = rig.held_sink()
    rig.start(spec(sink, adaptive=WRITES, max_records=10, min_workers=4, max_workers=4))
    rig.offer(records(100))
    sink.await_writes(1)
    rig.clock.await_waiting(3)
    assert sink.writes == 1
    figures = rig.pipeline()
    assert (figures["write_limit"], figures["busy_workers"], figures["workers"]) == (1, 1, 4)
    sink.let_go()
    rig.signals.wait_for(lambda s: s.stored == 100)
    assert rig.row()["stored"] == 100


class CountingSink(HeldSink):
    """Tells how many writes are in it, each of which takes a moment of the engine's time."""

    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self._rig = rig
        self.inside = 0
        self.most = 0
        self.let_go()

    def write(self, batch: Batch) -> None:
        with self._changed:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self._rig.clock.advance(0.001)
        super().write(batch)
        with self._changed:
            self.inside -= 1


def test_never_more_in_the_sink_than_the_limit_which_grows_by_one_a_round(rig: Rig) -> None:
    sink = CountingSink(rig)
    rig.start(spec(sink, adaptive=WRITES, max_records=10, min_workers=4, max_workers=4))
    store(rig, sink, 80)
    assert sink.most == 1
    store(rig, sink, 4_000)
    assert sink.most <= rig.pipeline()["write_limit"] <= 4
    assert rig.row()["stored"] == 4_080


def test_what_waits_for_its_next_try_holds_no_place(rig: Rig) -> None:
    sink = ScriptedSink(RetryableError("busy", retry_after_s=60.0))
    rig.start(spec(sink, adaptive=WRITES, max_records=10, min_workers=2, max_workers=2))
    rig.offer(records(10))
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    assert rig.pipeline()["write_limit"] == 1
    rig.offer(records(10))
    rig.signals.wait_for(lambda s: s.stored == 10)
    rig.clock.await_waiting(2)
    rig.clock.advance(61.0)
    rig.signals.wait_for(lambda s: s.stored == 20)


def test_switched_off_everyone_may_write_again_and_the_size_is_the_settings(rig: Rig) -> None:
    sink = rig.held_sink()
    first = spec(sink, adaptive=BOTH, max_records=50, min_workers=3, max_workers=3)
    engine = rig.start(first)
    rig.offer(records(300))
    sink.await_writes(1)
    rig.clock.await_waiting(2)
    assert sink.writes == 1
    engine.configure([changed(first, adaptive=AdaptiveSettings())])
    sink.await_writes(3)
    figures = rig.pipeline()
    assert (figures["batch_limit"], figures["write_limit"]) == (50, 3)
    sink.let_go()
    rig.signals.wait_for(lambda s: s.stored == 300)


def test_another_sink_is_found_out_about_anew(rig: Rig) -> None:
    sink = ScriptedSink(always=taking(rig, 0.01))
    first = spec(sink, adaptive=SIZE)
    engine = rig.start(first)
    store(rig, sink, 5_000)
    found = rig.pipeline()["batch_limit"]
    assert found > 200
    engine.configure([changed(first, max_wait_s=0.5)])
    assert rig.pipeline()["batch_limit"] == found
    engine.configure([dataclasses.replace(first, fingerprint="2")])
    assert rig.pipeline()["batch_limit"] == 100


def test_a_write_that_hangs_in_the_sink_of_before_says_nothing_of_this_one(rig: Rig) -> None:
    held = rig.held_sink(obeys_abort=False)
    first = spec(held, adaptive=SIZE, attempt_timeout_s=60.0)
    engine = rig.start(first)
    rig.offer(records(100))
    held.await_writes(1)
    engine.configure([dataclasses.replace(spec(ScriptedSink(), adaptive=SIZE), fingerprint="2")])
    (pipeline,) = engine.pipelines
    for seconds in (61.0, GRACE_S + 1.0):
        rig.clock.advance(seconds)
        pipeline.look()
    rig.clock.advance(RECOVER_S)
    rig.signals.wait_for(lambda s: s.stored == 100)
    assert rig.pipeline()["batch_limit"] == 100


def test_a_stop_delivers_all_through_one_write_at_once(rig: Rig) -> None:
    sink = ScriptedSink()
    engine = rig.start(spec(sink, adaptive=BOTH, min_workers=4, max_workers=4, max_wait_s=1000.0))
    for _ in range(7):
        rig.offer(records(33))
    assert engine.drain(30.0)
    assert sum(sink.stored.values()) == 231
    assert rig.row()["stored"] == 231
