"""How many workers a runner has, a look at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from jobs.running.hands import Hands, Run
from jobs.running.scaler import LOOK_S, SHRINK_AFTER_S, Scaler
from pipeline.delivery.workers import Worker, WorkerPool
from pipeline.runtime.clock import FakeClock
from tests.jobs.running.test_hands import run


class Shop:
    """A pool whose workers hold what they take until they are let go."""

    def __init__(self, *, least: int, most: int) -> None:
        self.clock = FakeClock()
        self.hands = Hands(clock=self.clock)
        self.more = False
        self.changed = 0
        self.held = threading.Semaphore(0)
        self.pool = WorkerPool(name="t", work=self._work, ended=lambda _: None, clock=self.clock)
        self.scaler = Scaler(
            pool=self.pool,
            hands=self.hands,
            more=lambda: self.more,
            least=least,
            most=most,
            clock=self.clock,
            changed=self._changed,
            look=lambda: None,
        )

    def _changed(self) -> None:
        self.changed += 1

    def _work(self, worker: Worker) -> None:
        while True:
            taken: Run | None = self.hands.take(worker)
            if taken is None:
                return
            assert self.held.acquire(timeout=60)
            self.hands.ended(taken)

    def settle(self, *, busy: int) -> None:
        while len(self.hands.busy()) != busy or self.hands.idle != len(self.pool.staying) - busy:
            threading.Event().wait(0.001)

    def look(self, times: int = 1) -> int:
        steps = 0
        for _ in range(times):
            self.clock.advance(LOOK_S)
            steps += self.scaler.scale()
        return steps


@pytest.fixture
def shop() -> Iterator[Shop]:
    made = Shop(least=1, most=6)
    yield made
    made.hands.close()
    for _ in range(100):
        made.held.release()
    made.pool.join(30)


def test_a_job_that_waits_brings_a_worker_and_no_more_than_the_most(shop: Shop) -> None:
    assert shop.look() == 1, "the least"
    shop.hands.put([run(number, shop.clock) for number in range(20)])
    shop.settle(busy=1)
    workers = [1]
    while workers[-1] < 6:
        assert shop.look() > 0
        workers.append(len(shop.pool.staying))
        shop.settle(busy=workers[-1])
    assert workers == [1, 2, 4, 6]
    assert shop.look(20) == 0
    assert shop.changed == 4


def test_jobs_that_are_known_to_wait_in_the_database_count_too(shop: Shop) -> None:
    shop.look()
    shop.hands.put([run(1, shop.clock)])
    shop.settle(busy=1)
    assert shop.look() == 0
    shop.more = True
    assert shop.look() == 1


def test_an_idle_worker_is_enough(shop: Shop) -> None:
    shop.look()
    shop.settle(busy=0)
    shop.more = True
    assert shop.look(3) == 0


def test_workers_go_one_by_one_when_they_were_idle_for_long(shop: Shop) -> None:
    shop.look()
    shop.hands.put([run(number, shop.clock) for number in range(4)])
    shop.settle(busy=1)
    for busy in (2, 4):
        shop.look()
        shop.settle(busy=busy)
    for _ in range(4):
        shop.held.release()
    shop.settle(busy=0)
    looks = round(SHRINK_AFTER_S / LOOK_S)
    assert shop.look(looks - 1) == 0, "not at once"
    assert shop.look(looks * 5) == -3, "down to the least"
    assert len(shop.pool.staying) == 1
