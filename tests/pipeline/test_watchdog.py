"""The watchdog: a sink that hangs, seen by a small pipeline of a pool, a slot and a breaker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from pipeline.delivery.breaker import Breaker, BreakerSettings
from pipeline.delivery.deliver import Outcome, deliver, report
from pipeline.delivery.retry import RetryPolicy
from pipeline.delivery.slot import SinkSlot
from pipeline.delivery.watchdog import GRACE_S, AttemptWatch, Watchdog
from pipeline.delivery.workers import Worker, WorkerPool
from pipeline.record import Batch, Part
from pipeline.runtime.clock import FakeClock
from pipeline.runtime.signals import Signals
from pipeline.sink import Written
from tests.pipeline.support import (
    PATIENCE_S,
    HeldSink,
    ScriptedSink,
    frame,
    records,
    share,
    weight,
)

TIMEOUT_S = 60.0
MAX_HUNG = 2


def a_batch(number: int = 1) -> Batch:
    of = records(1)
    nbytes = weight(of)
    part = Part(frame=frame(of, share(of)), start=0, count=1, nbytes=nbytes, held_bytes=nbytes)
    return Batch(number=number, log_id="log", sink="x", reason="size", parts=[part])


class Belt:
    """What a pipeline does with the objects under test, and nothing else: one lock, one queue."""

    def __init__(self, clock: FakeClock, *sinks: ScriptedSink) -> None:
        left = iter(sinks)
        self.clock = clock
        self.lock = threading.Condition()
        self.slot = SinkSlot(lambda: next(left))
        self.pool = WorkerPool(name="x", work=self.work, ended=lambda worker: None, clock=clock)
        self.watch = AttemptWatch(pool=self.pool, slot=self.slot)
        self.breaker = Breaker(BreakerSettings(consecutive=1), clock.monotonic())
        self.queue: list[Batch] = []
        self.settled: list[tuple[str, int, Outcome]] = []
        self.too_late: list[str] = []
        self.closing = False

    def put(self, *batches: Batch) -> None:
        with self.lock:
            self.queue += batches
            self.lock.notify_all()

    def work(self, worker: Worker) -> None:
        while (batch := self.take(worker)) is not None:
            outcome = deliver(
                batch,
                slot=self.slot,
                worker=worker,
                policy=RetryPolicy(),
                clock=self.clock,
                observer=Signals(),
            )
            worker.answered()
            with self.lock:
                if worker.batch is not batch:
                    self.too_late.append(worker.name)
                elif worker.permit is not None:
                    now = self.clock.monotonic()
                    report(outcome, breaker=self.breaker, permit=worker.permit, now=now)
                    self.settled.append((worker.name, batch.number, outcome))
                    worker.end()
                self.lock.notify_all()

    def take(self, worker: Worker) -> Batch | None:
        with self.lock:
            while not (worker.stopping or self.closing):
                now = self.clock.monotonic()
                if self.queue and not self.pool.stuck(MAX_HUNG):
                    permit = self.breaker.permit(now)
                    if permit is not None:
                        batch = self.queue.pop(0)
                        batch.attempt += 1
                        worker.begin(batch, now, permit)
                        self.lock.notify_all()
                        return batch
                self.lock.wait(PATIENCE_S)
            return None

    def look(self) -> list[str]:
        """One look of the watchdog; the names of those that were given up."""
        with self.lock:
            now = self.clock.monotonic()
            orphans = self.watch.look(now, timeout_s=TIMEOUT_S)
            for orphan in orphans:
                assert orphan.permit is not None
                self.breaker.failed(orphan.permit, now, "the write hangs")
                self.queue.append(orphan.batch)
            self.lock.notify_all()
            return [orphan.worker for orphan in orphans]

    def wait_for(self, what: Callable[[], bool]) -> None:
        with self.lock:
            assert self.lock.wait_for(what, PATIENCE_S), "waited in vain"

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        with self.lock:
            self.lock.notify_all()


class Rigged:
    """Belts and the sinks they may hang in, all let go when the test ends."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self._sinks: list[HeldSink] = []
        self._belts: list[Belt] = []

    def hanging(self, *, obeys_abort: bool = False) -> HeldSink:
        self._sinks.append(HeldSink(obeys_abort=obeys_abort))
        return self._sinks[-1]

    def belt(self, *sinks: ScriptedSink, workers: int = 1) -> Belt:
        belt = Belt(self.clock, *sinks)
        self._belts.append(belt)
        for _ in range(workers):
            assert belt.pool.grow(limit=workers)
        return belt

    def end(self) -> None:
        for sink in self._sinks:
            sink.let_go()
        for belt in self._belts:
            with belt.lock:
                belt.closing = True
                belt.lock.notify_all()
            for thread in threading.enumerate():
                if thread.name.startswith("x-"):
                    thread.join(PATIENCE_S)
            assert belt.pool.join(0) == []


@pytest.fixture
def rigged(clock: FakeClock) -> Iterator[Rigged]:
    rigged = Rigged(clock)
    yield rigged
    rigged.end()


def test_a_write_in_time_is_left_alone(rigged: Rigged) -> None:
    sink = rigged.hanging()
    belt = rigged.belt(sink)
    belt.put(a_batch())
    sink.await_writes(1)
    belt.pass_time(TIMEOUT_S - 0.1)
    assert belt.look() == []
    assert sink.aborted == 0
    sink.let_go()
    belt.wait_for(lambda: len(belt.settled) == 1)


def test_a_write_that_obeys_its_abort_comes_back_and_its_worker_goes_on(rigged: Rigged) -> None:
    sink, fresh = rigged.hanging(obeys_abort=True), ScriptedSink()
    belt = rigged.belt(sink, fresh)
    belt.put(a_batch(1))
    sink.await_writes(1)
    belt.pass_time(TIMEOUT_S)
    assert belt.look() == []
    belt.wait_for(lambda: len(belt.settled) == 1)
    ((worker, _, outcome),) = belt.settled
    assert outcome.retry_in_s is not None
    assert not outcome.bystander
    assert belt.breaker.state == "open"
    assert "Abandoned: SinkError: the write was aborted" in belt.breaker.cause

    belt.put(a_batch(2))
    belt.pass_time(30)
    belt.wait_for(lambda: len(belt.settled) == 2)
    assert belt.settled[1][:2] == (worker, 2)
    belt.pass_time(GRACE_S + TIMEOUT_S)
    assert (belt.look(), belt.pool.hung) == ([], [])
    fresh.await_stored(1)


def test_a_thread_that_does_not_come_back_loses_its_batch_for_good(rigged: Rigged) -> None:
    sink, fresh = rigged.hanging(), ScriptedSink()
    belt = rigged.belt(sink, fresh)
    batch = a_batch()
    belt.put(batch)
    sink.await_writes(1)
    belt.pass_time(TIMEOUT_S)
    assert belt.look() == []
    sink.wait_for(lambda: sink.aborted == 1)
    belt.pass_time(GRACE_S - 0.1)
    assert belt.look() == []
    belt.pass_time(0.1)
    assert belt.look() == ["x-1"]
    assert (belt.pool.hung, len(belt.pool), belt.breaker.cause) == (["x-1"], 0, "the write hangs")
    assert belt.look() == []

    assert belt.pool.grow(limit=1)
    belt.pass_time(30)
    belt.wait_for(lambda: len(belt.settled) == 1)
    assert (belt.settled[0][0], batch.attempt) == ("x-2", 2)

    sink.let_go()  # the write ends well, long after its batch was stored by another
    belt.wait_for(lambda: belt.too_late == ["x-1"])
    assert len(belt.settled) == 1
    for thread in threading.enumerate():
        if thread.name == "x-1":
            thread.join(PATIENCE_S)
    assert belt.pool.hung == []


def test_at_the_bound_nothing_is_begun_until_a_thread_comes_back(rigged: Rigged) -> None:
    first, second, fresh = rigged.hanging(), rigged.hanging(), ScriptedSink()
    belt = rigged.belt(first, second, fresh)
    belt.put(a_batch())
    for number, sink in enumerate((first, second), start=1):
        sink.await_writes(1)
        belt.pass_time(TIMEOUT_S)
        belt.look()
        belt.pass_time(GRACE_S)
        assert belt.look() == [f"x-{number}"]
        assert belt.pool.grow(limit=1)
        belt.pass_time(30)
    assert belt.pool.stuck(MAX_HUNG)
    assert (len(belt.queue), belt.settled, fresh.opened) == (1, [], 0)
    first.let_go()
    belt.wait_for(lambda: belt.too_late == ["x-1"])
    for thread in threading.enumerate():
        if thread.name == "x-1":
            thread.join(PATIENCE_S)
    belt.pass_time(0)
    belt.wait_for(lambda: len(belt.settled) == 1)
    assert belt.settled[0][0] == "x-3"


def test_a_write_beside_a_hung_one_counts_neither_against_its_batch_nor_the_sink(
    rigged: Rigged,
) -> None:
    """Two writes into one object, one of them in time: both are cut off, one is to blame."""

    class Shared(ScriptedSink):
        """Hangs in batch 1 whatever happens, and in batch 2 until it is aborted."""

        def __init__(self) -> None:
            super().__init__()
            self.begun: set[int] = set()
            self.cut = threading.Event()

        def write(self, batch: Batch) -> Written | None:
            with self._changed:
                self.begun.add(batch.number)
                self._changed.notify_all()
            assert (ends if batch.number == 1 else self.cut).wait(PATIENCE_S)
            raise OSError("socket closed")

        def abort(self) -> None:
            super().abort()
            self.cut.set()

    ends = threading.Event()
    sink = Shared()
    belt = rigged.belt(sink, ScriptedSink(), workers=2)
    belt.put(a_batch(1))
    sink.wait_for(lambda: sink.begun == {1})
    belt.pass_time(TIMEOUT_S - 1)
    belt.put(a_batch(2))
    sink.wait_for(lambda: sink.begun == {1, 2})
    belt.pass_time(1)
    belt.look()
    belt.wait_for(lambda: len(belt.settled) == 1)
    _, number, outcome = belt.settled[0]
    assert (number, outcome.bystander, outcome.retry_in_s) == (2, True, 0.0)
    assert belt.breaker.state == "closed"
    ends.set()
    belt.wait_for(lambda: len(belt.settled) == 2)
    assert belt.breaker.state == "open"


# --- the thread ----------------------------------------------------------------------------


class Looks:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.count = 0

    def __call__(self) -> None:
        with self.changed:
            self.count += 1
            self.changed.notify_all()
        if self.count == 1:
            raise OSError("a look that fails")

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.count >= count, PATIENCE_S)


def test_the_thread_looks_again_and_again_whatever_comes_of_it(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    looks = Looks()
    watchdog = Watchdog(look=looks, clock=clock, every_s=1.0)
    watchdog.start()
    watchdog.start()
    for count in (1, 2, 3):
        clock.await_waiting(1)
        assert looks.count == count - 1
        clock.advance(1.0)
        looks.wait_for(count)
    assert watchdog.stop(PATIENCE_S)
    assert "the watchdog could not look" in caplog.text


def test_stopping_is_final_and_comes_in_any_order(clock: FakeClock) -> None:
    looks = Looks()
    watchdog = Watchdog(look=looks, clock=clock)
    assert watchdog.stop(PATIENCE_S)
    watchdog.start()
    assert watchdog.stop(PATIENCE_S)
    assert looks.count == 0
    assert not any(thread.name == "watchdog" for thread in threading.enumerate())
