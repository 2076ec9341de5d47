"""One run in process: the engine it builds, the order in which it ends, the proof at the end."""

from __future__ import annotations

import logging
import threading

import pytest

from ingest.producer.hello import hello
from ingest.producer.progress import EngineLines, Progress
from ingest.producer.run import Run, RunOptions
from ingest.producer.slowsink import SlowSink, Tally
from pipeline.errors import Draining, RetryableError
from pipeline.runtime.clock import SystemClock
from tests.pipeline.support import PATIENCE_S, HeldSink

# Nothing closes a batch but its size and the end.
WAITS = {"batch_timeout_s": 3600.0, "rate_s": 1e-6}


class Stage:
    """A run and what it said; ended whatever happened."""

    def __init__(self, *, sink=None, tally=None, **options):
        self.lines: list[str] = []
        self.tally = tally or Tally()
        self.sink = sink or SlowSink(latency_s=0.0, tally=self.tally)
        self.ended = threading.Event()
        self.run = Run(
            options=RunOptions(**WAITS | options),
            sink=lambda: self.sink,
            tally=self.tally,
            clock=SystemClock(),
            progress=Progress(self.lines.append),
        )
        self.run.on_ended(self.ended.set)

    def until_made(self):
        self.run.start()
        assert self.ended.wait(PATIENCE_S)
        return self


@pytest.fixture
def stage():
    stages: list[Stage] = []

    def make(**options):
        stages.append(Stage(**options))
        return stages[-1]

    yield make
    for one in stages:
        if isinstance(one.sink, HeldSink):
            one.sink.let_go()
        one.run.stop(PATIENCE_S)


def test_it_ends_in_order_and_flushes_what_is_left(stage):
    one = stage(count=7).until_made()
    outcome = one.run.stop(PATIENCE_S)
    assert one.lines == [
        "Producer stopped after 7 logs",
        "Autoscaler stopped",
        "Buffer closed, 7 logs to flush",
        "Worker 1 flushed batch of 7 logs",
        "All workers joined",
    ]
    assert outcome.equal
    assert (outcome.produced, outcome.processed, outcome.stored) == (7, 7, 7)


def test_full_batches_are_no_flushes_of_the_end(stage):
    one = stage(count=103, batch_size=50)
    one.until_made()
    outcome = one.run.stop(PATIENCE_S)
    assert outcome.equal
    flushed = [line for line in one.lines if "flushed" in line]
    assert flushed[-1] == "Worker 1 flushed batch of 3 logs"
    assert one.tally.batches == 3


def test_no_thread_is_left(stage):
    one = stage(count=7, min_workers=3).until_made()
    one.run.stop(PATIENCE_S)
    names = [thread.name for thread in threading.enumerate()]
    assert not [n for n in names if n.startswith(("sink-producer", "producer", "autoscaler"))]


def test_the_queue_is_never_overfilled_and_nothing_is_lost(stage):
    sink = HeldSink()
    one = stage(sink=sink, channel_size=20, batch_size=10, count=50)
    one.run.start()
    sink.await_writes(1)
    full = threading.Event()
    while not full.wait(0.01):
        now = one.run.sample()
        assert now.held <= 20
        if now.held == 20 and now.refused:
            full.set()
    assert one.run.usage() == 1.0
    assert now.pause_s == 0.002
    sink.let_go()
    assert one.ended.wait(PATIENCE_S)
    one.run.stop(PATIENCE_S)
    assert sum(sink.stored.values()) == 50


def test_a_sink_that_loses_a_log_is_found_out(stage):
    class Loses(SlowSink):
        def write(self, batch):
            self._tally.add(len(batch.records) - 1)

    tally = Tally()
    one = stage(sink=Loses(latency_s=0.0, tally=tally), tally=tally, count=7).until_made()
    outcome = one.run.stop(PATIENCE_S)
    assert not outcome.equal
    assert "NOT equal: 1 logs were not processed" in outcome.line()


def test_a_batch_that_fails_is_tried_again_and_counted_once(stage):
    class Fails(SlowSink):
        failed = False

        def write(self, batch):
            if not self.failed:
                self.failed = True
                raise RetryableError("not now")
            super().write(batch)

    tally = Tally()
    one = stage(sink=Fails(latency_s=0.0, tally=tally), tally=tally, count=7).until_made()
    outcome = one.run.stop(PATIENCE_S)
    assert outcome.equal
    assert one.run.sample().retries == 1
    assert "not now" in one.run.last_error
    assert one.lines.count("Worker 1 flushed batch of 7 logs") == 1


def test_what_is_not_flushed_in_time_is_said(stage):
    sink = HeldSink(obeys_abort=False)
    one = stage(sink=sink, count=7).until_made()
    outcome = one.run.stop(0.0)
    assert one.lines[-1] == "Not everything was flushed in time"
    assert not outcome.equal
    assert outcome.produced == 7


def test_an_end_that_takes_too_long_can_be_cut_short(stage):
    sink = HeldSink()
    one = stage(sink=sink, count=7).until_made()
    outcomes = []
    stopping = threading.Thread(target=lambda: outcomes.append(one.run.stop(3600.0)))
    stopping.start()
    sink.await_writes(1)
    one.run.abandon()
    stopping.join(PATIENCE_S)
    assert not stopping.is_alive()
    assert not outcomes[0].equal


def test_the_engines_own_lines_are_said_and_go_nowhere_else(caplog):
    lines: list[str] = []
    logger = logging.getLogger("pipeline")
    before = logger.level, logger.propagate
    with EngineLines(Progress(lines.append)):
        logging.getLogger("pipeline.delivery.staffing").info(
            "Scaler: scaling %s, workers = %d", "UP", 3
        )
        logging.getLogger("elsewhere").warning("not said")
    assert lines == ["Scaler: scaling UP, workers = 3"]
    assert "scaling" not in caplog.text
    assert (logger.level, logger.propagate) == before


def test_settings_that_contradict_each_other_are_refused(stage):
    with pytest.raises(ValueError, match=r"min_workers.* <= max_workers"):
        stage(min_workers=5, max_workers=2)


def test_the_buffer_is_closed_by_the_time_it_is_said(stage):
    one = stage(count=7).until_made()
    refused = []

    def say(line):
        if line.startswith("Buffer closed"):
            try:
                one.run._engine.offer(type="log", tenant="default", records=[hello(1)])
            except Draining:
                refused.append(line)

    one.run._progress._say = say
    assert one.run.stop(PATIENCE_S).equal
    assert refused
