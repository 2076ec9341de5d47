"""The pool: threads with names, started one by one, told to end, joined within a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pipeline.delivery.workers import Worker, WorkerPool
from pipeline.record import Batch
from pipeline.runtime.clock import FakeClock
from tests.pipeline.rig import run_all
from tests.pipeline.support import PATIENCE_S


class Floor:
    """Work that goes on until its worker is told to stop or the floor closes."""

    def __init__(self, clock: FakeClock) -> None:
        self.changed = threading.Condition()
        self.closing = False
        self.ended: list[str] = []
        self.pool = WorkerPool(name="sink-x", work=self.work, ended=self.end, clock=clock)

    def work(self, worker: Worker) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.closing or worker.stopping, PATIENCE_S)

    def end(self, worker: Worker) -> None:
        with self.changed:
            self.ended.append(worker.name)
            self.changed.notify_all()

    def tell(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def close(self) -> None:
        self.closing = True
        self.tell()

    @property
    def names(self) -> list[str]:
        return [worker.name for worker in self.pool.workers]


@pytest.fixture
def floor(clock: FakeClock) -> Iterator[Floor]:
    floor = Floor(clock)
    yield floor
    threads = [worker.thread for worker in floor.pool.workers]
    floor.close()
    for thread in threads:
        thread.join(PATIENCE_S)


def test_the_pool_grows_one_named_thread_at_a_time_up_to_its_limit(floor: Floor) -> None:
    assert [floor.pool.grow(limit=2) for _ in range(3)] == [True, True, False]
    assert floor.names == ["sink-x-1", "sink-x-2"]
    assert [worker.thread.name for worker in floor.pool.workers] == floor.names
    assert len(floor.pool) == 2


def test_the_pool_shrinks_one_worker_at_a_time_down_to_its_least(floor: Floor) -> None:
    for _ in range(3):
        floor.pool.grow(limit=3)
    one, two, three = floor.pool.workers
    assert [floor.pool.shrink(least=1) for _ in range(3)] == [three, two, None]
    assert (three.stopping, two.stopping, one.stopping) == (True, True, False)
    assert floor.pool.staying == [one]
    floor.tell()
    for worker in (two, three):
        worker.thread.join(PATIENCE_S)
    assert floor.names == ["sink-x-1"]
    assert sorted(floor.ended) == ["sink-x-2", "sink-x-3"]


def test_an_idle_worker_leaves_before_a_busy_one_and_one_that_hangs_last(floor: Floor) -> None:
    for _ in range(4):
        floor.pool.grow(limit=4)
    hanging, idle, busy, late = floor.pool.workers
    for worker in (hanging, late):
        worker.begin(a_batch(), 0.0)
    assert floor.pool.overdue(60.0, 60.0) == [hanging, late]
    busy.begin(a_batch(), 50.0)
    idle.idle = True
    order = [floor.pool.shrink(least=0) for _ in range(4)]
    assert order == [idle, busy, late, hanging]


def test_threads_that_have_ended_are_joined(floor: Floor) -> None:
    for _ in range(3):
        floor.pool.grow(limit=3)
    threads = {worker.name: worker.thread for worker in floor.pool.workers}
    floor.pool.shrink(least=2)
    floor.tell()
    with floor.changed:
        floor.changed.wait_for(lambda: bool(floor.ended), PATIENCE_S)
    while len(floor.pool) > 2:
        pass
    floor.pool.reap()
    assert not threads["sink-x-3"].is_alive()
    floor.close()
    assert floor.pool.join(None) == []
    assert not any(thread.is_alive() for thread in threads.values())


def test_a_number_is_not_used_again(floor: Floor) -> None:
    floor.pool.grow(limit=1)
    floor.pool.shrink(least=0)
    floor.tell()
    assert floor.pool.join(None) == []
    floor.pool.grow(limit=1)
    assert floor.names == ["sink-x-2"]


def test_a_join_returns_when_all_have_ended(floor: Floor) -> None:
    for _ in range(3):
        floor.pool.grow(limit=3)
    floor.close()
    assert floor.pool.join(None) == []
    assert len(floor.ended) == 3


def test_a_join_returns_at_its_time_with_those_that_hang(floor: Floor, clock: FakeClock) -> None:
    floor.pool.grow(limit=1)
    got: list[list[Worker]] = []
    joining = threading.Thread(target=lambda: got.append(floor.pool.join(5.0)))
    joining.start()
    clock.await_waiting(1)
    clock.advance(4.9)
    clock.await_waiting(1)
    assert got == []
    clock.advance(0.2)
    joining.join(PATIENCE_S)
    assert [worker.name for worker in got[0]] == ["sink-x-1"]
    assert floor.pool.join(0.0) == got[0]


def test_the_pool_goes_on_with_fewer_when_the_system_gives_no_thread(
    floor: Floor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    floor.pool.grow(limit=2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert not floor.pool.grow(limit=2)
    assert floor.names == ["sink-x-1"]
    assert "sink-x-2 could not start" in caplog.text
    assert floor.pool.grow(limit=2)


def test_a_run_tells_a_workers_life(floor: Floor, clock: FakeClock) -> None:
    floor.pool.grow(limit=1)
    (worker,) = floor.pool.workers
    worker.records, worker.batches, worker.failures = 30, 3, 1
    began = clock.time_us()
    run = worker.run_of("x", began + 5)
    assert (run.pipeline, run.worker) == ("x", "sink-x-1")
    assert (run.started_us, run.ended_us) == (began, began + 5)
    assert (run.records, run.batches, run.failures, run.busy) == (30, 3, 1, False)


@pytest.mark.concurrency
def test_growing_and_shrinking_from_many_threads_keeps_within_the_limits(floor: Floor) -> None:
    def grow() -> None:
        for _ in range(50):
            floor.pool.grow(limit=4)
            assert len(floor.pool) <= 4

    def shrink() -> None:
        for _ in range(50):
            while floor.pool.shrink(least=1) is not None:
                pass
            floor.tell()
            floor.pool.reap()

    run_all([grow, grow, shrink])
    floor.close()
    assert floor.pool.join(None) == []
    assert len(set(floor.ended)) == len(floor.ended)


# --- those that hang -----------------------------------------------------------------------


def a_batch() -> Batch:
    return Batch(number=1, log_id="log", sink="x", reason="size", parts=[])


def test_an_attempt_is_overdue_once_and_only_after_its_time(floor: Floor) -> None:
    floor.pool.grow(limit=2)
    floor.pool.grow(limit=2)
    first, second = floor.pool.workers
    first.begin(a_batch(), 100.0)
    second.begin(a_batch(), 130.0)
    assert floor.pool.overdue(159.9, 60.0) == []
    assert floor.pool.overdue(160.0, 60.0) == [first]
    assert floor.pool.overdue(170.0, 60.0) == []
    assert floor.pool.overdue(190.0, 60.0) == [second]


def test_whoever_has_its_answer_or_a_new_attempt_is_not_overdue(floor: Floor) -> None:
    floor.pool.grow(limit=1)
    (worker,) = floor.pool.workers
    worker.begin(a_batch(), 100.0)
    worker.answered()
    assert floor.pool.overdue(1000.0, 60.0) == []
    worker.begin(a_batch(), 1000.0)
    assert floor.pool.overdue(1059.0, 60.0) == []
    assert floor.pool.overdue(1060.0, 60.0) == [worker]
    worker.end()
    worker.begin(a_batch(), 1061.0)
    assert not worker.late
    assert floor.pool.unresponsive(1070.0, 5.0) == []


def test_a_worker_that_answers_within_the_grace_is_not_given_up(floor: Floor) -> None:
    floor.pool.grow(limit=1)
    (worker,) = floor.pool.workers
    worker.begin(a_batch(), 0.0)
    floor.pool.overdue(60.0, 60.0)
    assert floor.pool.unresponsive(64.9, 5.0) == []
    assert floor.pool.unresponsive(65.0, 5.0) == [worker]
    worker.answered()
    assert floor.pool.unresponsive(65.0, 5.0) == []


def test_a_worker_that_hangs_is_replaced_and_its_batch_taken(floor: Floor) -> None:
    floor.pool.grow(limit=1)
    (worker,) = floor.pool.workers
    batch = a_batch()
    worker.begin(batch, 0.0)
    with floor.changed:  # it may not end while this is looked at
        assert floor.pool.disown(worker) is batch
        assert (worker.batch, worker.permit) == (None, None)
        assert (floor.names, floor.pool.hung, len(floor.pool)) == ([], ["sink-x-1"], 0)
        assert floor.pool.disown(worker) is None
    assert floor.pool.grow(limit=1)
    assert floor.names == ["sink-x-2"]


def test_a_worker_that_holds_nothing_is_not_given_up(floor: Floor) -> None:
    floor.pool.grow(limit=1)
    (worker,) = floor.pool.workers
    assert floor.pool.disown(worker) is None
    assert floor.pool.hung == []


def test_a_worker_that_comes_back_late_ends_and_no_longer_counts(floor: Floor) -> None:
    floor.pool.grow(limit=1)
    (worker,) = floor.pool.workers
    worker.begin(a_batch(), 0.0)
    with floor.changed:
        floor.pool.disown(worker)
        assert floor.pool.stuck(1)
        assert not floor.pool.stuck(2)
    floor.tell()
    worker.thread.join(PATIENCE_S)
    assert not worker.thread.is_alive()
    assert (floor.pool.hung, floor.ended) == ([], ["sink-x-1"])
    assert not floor.pool.stuck(1)


def test_a_join_does_not_wait_for_a_thread_that_hangs_but_names_it(
    floor: Floor, clock: FakeClock
) -> None:
    floor.pool.grow(limit=1)
    (worker,) = floor.pool.workers
    worker.begin(a_batch(), 0.0)
    with floor.changed:
        floor.pool.disown(worker)
        assert floor.pool.join(None) == [worker]
