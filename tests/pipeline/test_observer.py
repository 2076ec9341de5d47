"""Observers: told of everything, unable to harm anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from pipeline.delivery.workers import WorkerRun
from pipeline.errors import PermanentError, RetryableError
from pipeline.observer import Observer, Observers
from pipeline.record import Batch, Record
from tests.pipeline.rig import Rig
from tests.pipeline.support import PATIENCE_S, ScriptedSink, records, spec


class Raising(Observer):
    """Fails in every way it can."""

    def batch_closed(self, batch: Batch) -> None:
        raise ValueError("closed")

    def writing(self, batch: Batch, worker: str) -> AbstractContextManager[object]:
        raise ValueError("writing")

    def write_finished(self, batch: Batch, seconds: float, error: BaseException | None) -> None:
        raise ValueError("finished")

    def batch_settled(self, batch: Batch, stored: int, already_stored: int, age_s: float) -> None:
        raise ValueError("settled")

    def retry_scheduled(self, batch: Batch, delay_s: float, error: BaseException) -> None:
        raise ValueError("retry")

    def records_dropped(
        self, pipeline: str, tenant: str, records: Iterable[Record], reason: str, error: str
    ) -> None:
        raise ValueError("dropped")

    def worker_ended(self, run: WorkerRun) -> None:
        raise ValueError("ended")


class RaisingInside(Observer):
    """A context around the write that fails when it is left."""

    @contextmanager
    def writing(self, batch: Batch, worker: str) -> Iterator[None]:
        yield
        raise ValueError("leaving")


class Swallowing(Observer):
    """A context around the write that would hide the sink's error."""

    @contextmanager
    def writing(self, batch: Batch, worker: str) -> Iterator[None]:
        try:
            yield
        except Exception:
            return


class Around(Observer):
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    @contextmanager
    def writing(self, batch: Batch, worker: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.seen.append((worker, str(error)))
            raise
        else:
            self.seen.append((worker, "stored"))


@pytest.mark.parametrize("observer", [Raising(), RaisingInside(), Swallowing()])
def test_an_observer_that_raises_or_hides_errors_changes_nothing(
    rig: Rig, observer: Observer, caplog: pytest.LogCaptureFixture
) -> None:
    rig.engine.observe(observer)
    sink = ScriptedSink(RetryableError("busy"), PermanentError("poison"))
    rig.start(spec(sink, max_records=2))
    done = rig.offer(records(2))
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    rig.clock.advance(2)
    assert done.wait(PATIENCE_S)
    assert len(sink.stored) == 2, "split after the permanent error, then both stored"
    assert rig.row()["stored"] == 2
    assert rig.engine.stop(10)
    if isinstance(observer, Raising):
        for method in ("batch_closed", "writing", "write_finished", "batch_settled", "retry"):
            assert f"failed in {method}" in caplog.text


def test_an_observer_that_raises_about_drops_and_ends_changes_nothing(rig: Rig) -> None:
    rig.engine.observe(Raising())
    rig.start(spec(ScriptedSink(always=PermanentError("bad")), max_records=1))
    assert rig.offer(records(1)).wait(PATIENCE_S)
    assert rig.row()["dropped"] == {"permanent": 1}
    assert rig.engine.stop(10)


def test_a_context_around_the_write_sees_the_workers_name_and_the_error(rig: Rig) -> None:
    around = Around()
    rig.engine.observe(around)
    rig.start(spec(ScriptedSink(RetryableError("busy")), key="k", name="db", max_records=1))
    done = rig.offer(records(1))
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    rig.clock.advance(2)
    assert done.wait(PATIENCE_S)
    assert around.seen == [("sink-db-1", "busy"), ("sink-db-1", "stored")]


def test_every_observer_is_told_of_the_life_of_a_batch(rig: Rig) -> None:
    rig.start(spec(ScriptedSink(RetryableError("busy")), max_records=2))
    of = records(2)
    done = rig.offer(of)
    rig.signals.wait_for(lambda s: len(s.retries) == 1)
    rig.clock.advance(2)
    assert done.wait(PATIENCE_S)
    signals = rig.signals
    signals.wait_for(lambda s: len(s.settled) == 1)
    assert [(c.reason, c.records) for c in signals.closed] == [("size", 2)]
    assert [(a.attempt, type(a.error)) for a in signals.attempts] == [
        (1, RetryableError),
        (2, type(None)),
    ]
    assert signals.settled[0][2:] == (2, 0)
    assert signals.stored == 2
    rig.engine.stop(10)
    signals.wait_for(lambda s: len(s.ended) == 1)
    run = signals.ended[0]
    assert (run.pipeline, run.worker, run.records, run.batches, run.failures) == (
        "a",
        "sink-a-1",
        2,
        2,
        1,
    )
    assert run.ended_us > run.started_us


def test_waiting_for_what_never_comes_tells_what_came(rig: Rig) -> None:
    with pytest.raises(TimeoutError, match="waited 0 s in vain; what came"):
        rig.signals.wait_for(lambda s: bool(s.closed), timeout_s=0)


def test_the_base_class_wants_nothing_overridden() -> None:
    watching = Observers()
    watching.add(Observer())
    batch = Batch(number=1, log_id="l", sink="a", reason="size", parts=[])
    with watching.writing(batch, "w"):
        watching.batch_closed(batch)
        watching.write_finished(batch, 0.1, None)
        watching.batch_settled(batch, 0, 0, 0.1)
        watching.retry_scheduled(batch, 0.1, OSError())
        watching.records_dropped("a", "t", [], "x", "y")
