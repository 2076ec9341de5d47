"""The failure policy in a whole pipeline: a sink that hangs, and a batch that fails on its own."""

from __future__ import annotations

from pipeline.delivery.breaker import BreakerSettings
from pipeline.delivery.watchdog import GRACE_S
from pipeline.errors import SinkFault
from pipeline.record import Batch
from pipeline.sink import Written
from tests.pipeline.rig import Rig
from tests.pipeline.support import PATIENCE_S, HeldSink, ScriptedSink, records, spec


def test_a_hung_write_loses_its_batch_to_another_worker_and_settles_nothing(rig: Rig) -> None:
    hung, fresh = rig.held_sink(obeys_abort=False), ScriptedSink()
    sinks = iter([hung, fresh])
    rig.start(spec(lambda: next(sinks), max_records=1, attempt_timeout_s=60.0))
    (pipeline,) = rig.engine.pipelines
    done = rig.offer(records(1))
    hung.await_writes(1)
    (thread,) = [worker.thread for worker in pipeline.workers]
    rig.clock.advance(60)
    pipeline.look()
    hung.wait_for(lambda: hung.aborted == 1)
    rig.clock.advance(GRACE_S)
    pipeline.look()
    assert rig.pipeline()["hung_workers"] == [thread.name]
    assert rig.row()["in_flight"] == 1
    rig.clock.await_waiting(1)
    rig.clock.advance(1)
    assert done.wait(PATIENCE_S)
    assert (rig.row()["stored"], rig.row()["in_flight"]) == (1, 0)
    hung.let_go()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert (rig.row()["stored"], rig.pipeline()["hung_workers"]) == (1, [])
    assert len(rig.signals.settled) == 1


def test_at_the_bound_the_pipeline_is_stuck_and_holds_until_a_thread_comes_back(rig: Rig) -> None:
    hung, fresh = rig.held_sink(obeys_abort=False), ScriptedSink()
    sinks = iter([hung, fresh])
    rig.start(
        spec(
            lambda: next(sinks),
            max_records=1,
            max_hung_workers=1,
            breaker=BreakerSettings(enabled=False),
        )
    )
    (pipeline,) = rig.engine.pipelines
    done = rig.offer(records(1))
    hung.await_writes(1)
    (thread,) = [worker.thread for worker in pipeline.workers]
    rig.clock.advance(60)
    pipeline.look()
    rig.clock.advance(GRACE_S)
    pipeline.look()
    assert rig.pipeline()["state"] == "stuck"
    rig.clock.advance(100)
    assert fresh.opened == 0
    hung.let_go()
    thread.join(PATIENCE_S)
    pipeline.look()
    rig.clock.await_waiting(1)
    rig.clock.advance(1)
    assert done.wait(PATIENCE_S)
    assert rig.pipeline()["state"] == "running"
    assert rig.row()["stored"] == 1


def test_a_batch_that_keeps_failing_does_not_keep_the_breaker_open_for_the_others(rig: Rig) -> None:
    """The probe is a fresh batch: the one that failed may be at fault itself."""
    good, bad = records(2)

    def step(batch: Batch) -> None:
        if any(one.message == bad.message for one in batch.records):
            raise SinkFault("a trigger says that a column is missing")

    sink = ScriptedSink(always=step)
    settings = BreakerSettings(consecutive=1, open_s=30)
    rig.start(spec(sink, max_records=1, breaker=settings))
    rig.offer([bad])
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    rig.offer([good])
    rig.clock.await_waiting(1)
    rig.clock.advance(31)
    sink.await_stored(1)
    assert sink.stored == {good.message: 1}


class FailsThenHangs(HeldSink):
    """Its first write fails, the second hangs."""

    def write(self, batch: Batch) -> Written | None:
        with self._changed:
            first = not self._writes
            self._writes += first
        if first:
            raise SinkFault("down")
        return super().write(batch)


def test_a_probe_that_hangs_gives_its_place_back(rig: Rig) -> None:
    """Else a half-open breaker would wait for it for ever."""
    hung, fresh = FailsThenHangs(obeys_abort=False), ScriptedSink()
    rig._held.append(hung)
    sinks = iter([hung, fresh])
    settings = BreakerSettings(consecutive=1, open_s=30)
    rig.start(spec(lambda: next(sinks), max_records=1, attempt_timeout_s=60.0, breaker=settings))
    (pipeline,) = rig.engine.pipelines
    done = rig.offer(records(1))
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    assert pipeline.breaker.state == "open"
    rig.clock.await_waiting(1)
    rig.clock.advance(31)
    hung.await_writes(2)
    assert pipeline.breaker.state == "half_open"
    rig.clock.advance(60)
    pipeline.look()
    hung.wait_for(lambda: hung.aborted == 1)
    rig.clock.advance(GRACE_S)
    pipeline.look()
    assert (pipeline.breaker.state, pipeline.breaker.cause) == ("open", "the sink hangs in a write")
    rig.clock.await_waiting(1)
    rig.clock.advance(31)
    assert done.wait(PATIENCE_S)
    assert fresh.stored.total() == 1
    assert pipeline.breaker.state == "closed"
    hung.let_go()
