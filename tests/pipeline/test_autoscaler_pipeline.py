"""A pipeline whose workers the autoscaler adds and ends: when, which, and what becomes of batches.

Its thread does not run here: a test moves the clock and has the pipeline looked at.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from pipeline.delivery.autoscaler import AutoscaleSettings
from pipeline.delivery.breaker import BreakerSettings
from pipeline.errors import RetryableError
from pipeline.log.log import Log
from pipeline.pipeline import Pipeline
from pipeline.record import Batch
from pipeline.runtime.clock import FakeClock, SystemClock
from pipeline.runtime.rounds import Rounds
from pipeline.runtime.signals import Signals
from pipeline.sink import Sink, Written
from pipeline.spec import PipelineSpec
from tests.pipeline.rig import Rig
from tests.pipeline.support import PATIENCE_S, ScriptedSink, record, records, spec

ONLY_USAGE = AutoscaleSettings(up_batches=0)


class Scene:
    """A rig with one pipeline, at which only the test looks."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    def start(self, sink: Sink, **settings: Any) -> Pipeline:
        rig = self.rig
        rig.engine.configure([self.spec(sink, **settings)])
        (self.pipeline,) = rig.engine.pipelines
        self.pipeline.start()
        return self.pipeline

    @staticmethod
    def spec(sink: Sink, **settings: Any) -> PipelineSpec:
        """A batch of ten takes a tenth of the room that offers may fill."""
        few = {"max_records": 10, "capacity_records": 100, "high_watermark": 1.0}
        return spec(sink, **{**few, "max_workers": 4, **settings})

    def look(self, after_s: float = 3.0) -> int:
        """Look once, `after_s` later; returns the step that was taken."""
        known = len(self.rig.signals.scalings)
        self.rig.clock.advance(after_s)
        self.pipeline.scale()
        new = self.rig.signals.scalings[known:]
        assert len(new) <= 1
        return new[0].step if new else 0

    @property
    def workers(self) -> int:
        return len(self.pipeline.workers)


@pytest.fixture
def scene(rig: Rig) -> Scene:
    return Scene(rig)


def test_pressure_adds_workers_one_at_a_time_up_to_the_most(
    rig: Rig, scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pipeline.delivery.staffing")
    sink = rig.held_sink()
    scene.start(sink, autoscale=ONLY_USAGE)
    for _ in range(9):
        rig.offer(records(10))
    sink.await_writes(1)
    for workers in (2, 3, 4):
        assert scene.look() == 1
        sink.await_writes(workers)
        assert scene.workers == workers
    assert scene.look() == 0
    shown = rig.pipeline()
    assert (shown["workers"], shown["scaled_up"], shown["scaled_down"]) == (4, 3, 0)
    assert caplog.messages == [f"Scaler: scaling UP, workers = {n}" for n in (2, 3, 4)]
    line = caplog.records[0]
    assert (line.sink, line.why) == (  # type: ignore[attr-defined]
        "a",
        "90% of the room is held, more than 80%",
    )


def test_growth_comes_before_refusal(rig: Rig, scene: Scene) -> None:
    """The room that counts is what offers may fill, not the whole capacity."""
    sink = rig.held_sink()
    scene.start(sink, high_watermark=0.5, low_watermark=0.5, autoscale=ONLY_USAGE)
    for _ in range(4):
        rig.offer(records(10))
    sink.await_writes(1)
    assert scene.look() == 0, "four fifths, and not more"
    rig.offer(records(1))
    assert not scene.pipeline.admission.refusing
    assert scene.look() == 1


def test_full_batches_that_wait_add_a_worker_though_little_of_the_room_is_held(
    rig: Rig, scene: Scene
) -> None:
    sink = rig.held_sink()
    scene.start(sink, capacity_records=1_000_000)
    for _ in range(3):
        rig.offer(records(10))
    sink.await_writes(1)
    assert scene.look() == 0, "one batch with the worker and two that wait"
    rig.offer(records(10))
    assert scene.look() == 1
    assert rig.signals.scalings[0].why == "3 full batches wait for 1 worker; 0% of the room is held"


def test_large_records_fill_batches_by_their_bytes(rig: Rig, scene: Scene) -> None:
    sink = rig.held_sink()
    scene.start(sink, max_records=1000, max_bytes=2000, capacity_records=1_000_000)
    for _ in range(4):
        rig.offer([record(payload=b"x" * 2000)])
    sink.await_writes(1)
    assert scene.look() == 1


def test_nobody_looks_before_the_interval_is_over_nor_changes_within_the_cool_down(
    rig: Rig, scene: Scene
) -> None:
    sink = rig.held_sink()
    pipeline = scene.start(sink, autoscale=AutoscaleSettings(interval_s=1.0, cooldown_s=2.0))
    for _ in range(9):
        rig.offer(records(10))
    sink.await_writes(1)
    assert scene.look(0.9) == 0
    assert pipeline.scale() == pytest.approx(0.1)
    assert scene.look(0.1) == 1
    assert scene.look(1.0) == 0, "within the cool-down"
    assert scene.look(1.0) == 1


def test_changed_settings_count_at_the_next_look(rig: Rig, scene: Scene) -> None:
    sink = rig.held_sink()
    pipeline = scene.start(sink, autoscale=AutoscaleSettings(interval_s=3600.0))
    for _ in range(9):
        rig.offer(records(10))
    sink.await_writes(1)
    assert scene.look(60.0) == 0
    rig.engine.configure([scene.spec(sink, autoscale=AutoscaleSettings(interval_s=1.0))])
    pipeline.scale()
    assert scene.workers == 2


def test_nothing_changes_in_a_drain(rig: Rig, scene: Scene) -> None:
    sink = rig.held_sink()
    pipeline = scene.start(sink, min_workers=2)
    for _ in range(9):
        rig.offer(records(10))
    sink.await_writes(2)
    pipeline.begin_drain()
    assert scene.look() == 0
    sink.let_go()
    sink.await_stored(90)
    rig.clock.await_waiting(2)
    assert scene.look() == 0
    assert scene.workers == 2


@pytest.mark.parametrize("batches", [1, 9])
def test_nothing_changes_while_the_breaker_is_open(rig: Rig, scene: Scene, batches: int) -> None:
    """Neither more, for what waits, nor fewer, for the calm."""
    sink = ScriptedSink(always=RetryableError("away"))
    long = BreakerSettings(consecutive=1, open_s=3600.0)
    pipeline = scene.start(sink, min_workers=3, breaker=long)
    rig.clock.await_waiting(3)
    for _ in range(batches):
        rig.offer(records(10))
    rig.signals.wait_for(lambda s: len(s.retries) >= 1)
    rig.clock.await_waiting(3)
    rig.engine.configure([scene.spec(sink, breaker=long)])
    assert pipeline.breaker.state == "open"
    for _ in range(3):
        assert scene.look() == 0
    assert scene.workers == 3


def test_nobody_comes_while_the_breaker_lets_one_batch_try(rig: Rig, scene: Scene) -> None:
    entered, go = threading.Event(), threading.Event()

    def probed(batch: Batch) -> None:
        entered.set()
        assert go.wait(PATIENCE_S), "nobody let the write go"

    sink = ScriptedSink(RetryableError("away"), probed)
    pipeline = scene.start(sink, breaker=BreakerSettings(consecutive=1, open_s=10.0))
    for _ in range(9):
        rig.offer(records(10))
    rig.signals.wait_for(lambda s: len(s.retries) >= 1)
    rig.clock.await_waiting(1)
    try:
        step = scene.look(10.0)
        assert entered.wait(PATIENCE_S)
        assert pipeline.breaker.state == "half_open"
        assert (step, scene.look(), scene.workers) == (0, 0, 1)
    finally:
        go.set()


def test_nothing_changes_while_the_sink_is_paused(rig: Rig, scene: Scene) -> None:
    sink = ScriptedSink()
    scene.start(sink, paused=True)
    for _ in range(9):
        rig.offer(records(10))
    assert scene.look() == 0
    assert scene.workers == 1


def test_what_only_waits_for_its_time_needs_no_worker(rig: Rig, scene: Scene) -> None:
    """The room is nearly full and no batch is due: the one worker is idle already."""
    scene.start(ScriptedSink(), max_records=100, max_wait_s=3600.0)
    rig.offer(records(90))
    rig.clock.await_waiting(1)
    assert scene.look() == 0


def test_the_idle_worker_leaves_at_once_and_the_busy_one_finishes(rig: Rig, scene: Scene) -> None:
    sink = rig.held_sink()
    pipeline = scene.start(sink, min_workers=3)
    rig.clock.await_waiting(3)
    rig.engine.configure([scene.spec(sink)])
    done = rig.offer(records(10))
    sink.await_writes(1)
    rig.clock.await_waiting(2)
    (busy,) = [worker for worker in pipeline.workers if worker.batch is not None]
    scene.look()  # counts from when all had nothing to do
    rig.signals.wait_for(lambda s: len(s.ended) == 1)
    assert rig.signals.scalings[0].workers == 2
    assert rig.signals.ended[0].worker != busy.name
    rig.clock.await_waiting(1)
    assert scene.look() == 0, "one is busy all the time, and needs another to be free"
    sink.let_go()
    assert done.wait(PATIENCE_S)
    rig.clock.await_waiting(2)
    assert scene.look() == -1
    rig.signals.wait_for(lambda s: len(s.ended) == 2)
    rig.clock.await_waiting(1)
    assert scene.look() == 0
    assert scene.workers == 1


def test_an_idle_worker_is_woken_to_leave() -> None:
    """By nothing else: there is no work, and no watchdog looks."""
    signals = Signals()
    often = AutoscaleSettings(interval_s=0.001, cooldown_s=0.0)
    pipeline = Pipeline(
        spec=spec(ScriptedSink(), min_workers=2, max_workers=2, autoscale=often),
        journal=Log(log_id="log"),
        clock=SystemClock(),
        observer=signals,
    )
    pipeline.start()
    pipeline.configure(spec(ScriptedSink(), max_workers=2, autoscale=often))
    looking = Rounds(name="looking", round=pipeline.scale, clock=SystemClock())
    looking.start()
    signals.wait_for(lambda s: len(s.ended) == 1)
    assert looking.stop(PATIENCE_S)
    assert len(pipeline.workers) == 1
    pipeline.halt()
    assert pipeline.end(PATIENCE_S) == []


def test_a_worker_that_is_told_to_end_finishes_the_batch_in_its_hand(
    rig: Rig, scene: Scene
) -> None:
    sink = rig.held_sink()
    pipeline = scene.start(sink, min_workers=2, max_workers=2)
    done = [rig.offer(records(10)) for _ in range(3)]
    sink.await_writes(2)
    leaving = pipeline.workers[-1].thread
    rig.engine.configure([scene.spec(sink, min_workers=1, max_workers=1)])
    assert rig.pipeline()["workers"] == 2, "both still write"
    sink.let_go()
    for receipt in done:
        assert receipt.wait(PATIENCE_S)
    rig.signals.wait_for(lambda s: len(s.ended) == 1)
    assert rig.signals.ended[0].batches == 1
    leaving.join(PATIENCE_S)
    assert not leaving.is_alive()
    assert scene.workers == 1
    assert len(sink.stored) == 30


def test_a_batch_in_back_off_is_the_pipelines_and_outlives_its_worker(
    rig: Rig, scene: Scene
) -> None:
    sink = ScriptedSink(RetryableError("busy", retry_after_s=30.0))
    pipeline = scene.start(sink, min_workers=2, max_workers=2)
    rig.clock.await_waiting(2)
    done = rig.offer(records(10))
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    rig.clock.await_waiting(2)
    (tried,) = [worker for worker in pipeline.workers if worker.failures]
    other = next(worker for worker in pipeline.workers if worker is not tried)
    with pipeline.lock:  # so that whoever tried it is the one that leaves
        tried.idle, other.idle = True, False
    rig.engine.configure([scene.spec(sink, min_workers=1, max_workers=1)])
    rig.signals.wait_for(lambda s: len(s.ended) == 1)
    assert rig.signals.ended[0].worker == tried.name
    rig.clock.advance(31.0)
    assert done.wait(PATIENCE_S)
    assert [a.attempt for a in rig.signals.attempts] == [1, 2]
    assert len(sink.stored) == 10


# --- what it is for ------------------------------------------------------------------------


class DistantSink(ScriptedSink):
    """Each write takes `latency_s` of the clock, which a test moves on."""

    def __init__(self, clock: FakeClock, latency_s: float) -> None:
        super().__init__()
        self._clock = clock
        self._latency_s = latency_s
        self._waiting = threading.Condition()
        self.begun = 0

    def write(self, batch: Batch) -> Written | None:
        due = self._clock.monotonic() + self._latency_s
        with self._changed:
            self.begun += 1
            self._changed.notify_all()
        with self._waiting:
            while (left := due - self._clock.monotonic()) > 0:
                self._clock.wait(self._waiting, left)
        return super().write(batch)

    def await_begun(self, count: int) -> None:
        self.wait_for(lambda: self.begun >= count)


def test_four_workers_store_three_times_what_one_does_in_a_sink_of_a_tenth_of_a_second(
    rig: Rig, scene: Scene
) -> None:
    """The time in which they grow from one to four is counted."""
    sink = DistantSink(rig.clock, 0.1)
    often = AutoscaleSettings(interval_s=1 / 64, cooldown_s=0.0)
    pipeline = scene.start(sink, capacity_records=1_000_000, autoscale=often)

    def seconds_to_store(batches: int, *, workers: int) -> float:
        began, before = rig.clock.monotonic(), sink.begun
        receipts = [rig.offer(records(10)) for _ in range(batches)]
        for more in range(2, workers + 1):
            sink.await_begun(before + more - 1)
            rig.clock.advance(1 / 64)
            pipeline.scale()
            assert scene.workers == more
        for done in range(workers, batches + workers, workers):
            sink.await_begun(before + min(done, batches))
            rig.clock.advance(1 / 8)  # the writes of this round are over
            sink.await_stored(10 * (before + min(done, batches)))
        assert all(receipt.wait(PATIENCE_S) for receipt in receipts)
        return rig.clock.monotonic() - began

    alone = seconds_to_store(24, workers=1)
    assert alone == 24 / 8
    assert alone / seconds_to_store(24, workers=4) >= 3
