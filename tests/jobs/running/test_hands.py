"""What a runner holds: room, taking, holding back, closing."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from jobs.execution.interruption import Interruption
from jobs.running.hands import AHEAD, Hands, Run
from jobs.store.protocol import Claimed
from jobs.types.spec import TypeSpec
from pipeline.delivery.workers import Worker
from pipeline.runtime.clock import FakeClock

TYPE = TypeSpec(id=1, name="t")


def claimed(number: int, **fields: Any) -> Claimed:
    values: dict[str, Any] = {
        "id": UUID(int=number),
        "type_id": 1,
        "claim": 1,
        "attempts": 0,
        "payload": {},
        "tenant": "default",
        "priority": 5,
        "correlation_id": "",
        "service": "",
        "traceparent": "",
        "webhook_url": "",
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "deadline_in_s": None,
        "waited_s": 0.0,
    }
    return Claimed(**{**values, **fields})


def run(number: int, clock: FakeClock) -> Run:
    return Run(
        job=claimed(number), type=TYPE, interruption=Interruption(clock=clock), claimed_at=0.0
    )


def numbers(runs: list[Run]) -> list[int]:
    return [one.job.id.int for one in runs]


def test_slow_jobs_are_claimed_for_free_workers_alone() -> None:
    clock = FakeClock()
    hands = Hands(clock=clock)
    assert hands.room(4) == 4
    hands.put([run(1, clock), run(2, clock)])
    assert hands.room(4) == 2
    first = hands.take(Worker("w", 0))
    assert first is not None
    assert hands.room(4) == 2
    clock.advance(5)
    hands.ended(first)
    assert hands.room(4) == 3


def test_quick_jobs_are_claimed_ahead() -> None:
    clock = FakeClock()
    hands = Hands(clock=clock)
    for number in range(200):
        hands.put([run(number, clock)])
        taken = hands.take(Worker("w", 0))
        assert taken is not None
        hands.ended(taken)
    assert hands.room(4) == 4 * (1 + AHEAD)


def test_jobs_are_taken_in_their_order_and_ended_once() -> None:
    clock = FakeClock()
    hands = Hands(clock=clock)
    hands.put([run(number, clock) for number in (1, 2, 3)])
    first = hands.take(Worker("w", 0))
    assert first is not None
    assert first.job.id.int == 1
    assert numbers(hands.busy()) == [1]
    hands.ended(first)
    hands.ended(first)
    assert hands.busy() == []


def test_nothing_is_begun_while_the_lease_is_in_doubt() -> None:
    clock = FakeClock()
    hands = Hands(clock=clock)
    hands.hold(True)
    hands.put([run(1, clock)])
    assert hands.room(4) == 0
    taken: list[Run | None] = []
    thread = threading.Thread(target=lambda: taken.append(hands.take(Worker("w", 0))))
    thread.start()
    while not hands.idle:
        threading.Event().wait(0.001)
    assert taken == []
    hands.hold(False)
    thread.join(30)
    assert [one.job.id.int for one in taken if one] == [1]


def test_closing_ends_workers_and_gives_back_what_was_not_begun() -> None:
    clock = FakeClock()
    hands = Hands(clock=clock)
    hands.put([run(number, clock) for number in (1, 2)])
    first = hands.take(Worker("w", 0))
    assert first is not None
    assert numbers(hands.close()) == [2]
    assert hands.take(Worker("x", 0)) is None
    late = run(3, clock)
    assert hands.put([late]) == [late], "what was claimed meanwhile goes back too"
    assert hands.room(4) == 0


def test_a_worker_that_is_to_end_takes_nothing() -> None:
    clock = FakeClock()
    hands = Hands(clock=clock)
    hands.put([run(1, clock)])
    worker = Worker("w", 0)
    worker.stopping = True
    assert hands.take(worker) is None
    assert hands.waiting == 1


def test_one_that_was_not_begun_can_be_withdrawn_once() -> None:
    clock = FakeClock()
    hands = Hands(clock=clock)
    one, two = run(1, clock), run(2, clock)
    hands.put([one, two])
    assert hands.find(one.job.id) is one
    assert hands.withdraw(one)
    assert not hands.withdraw(one)
    taken = hands.take(Worker("w", 0))
    assert taken is two
    assert not hands.withdraw(two), "what is begun is interrupted instead"


def test_waiting_for_the_workers_to_end() -> None:
    clock = FakeClock()
    hands = Hands(clock=clock)
    hands.put([run(1, clock)])
    taken = hands.take(Worker("w", 0))
    assert taken is not None
    assert hands.await_idle(0) is False
    hands.ended(taken)
    assert hands.await_idle(0) is True


def test_a_worker_asks_for_the_lease_itself() -> None:
    """Thawed, it may be quicker than the keeper, who would hold it back."""
    clock = FakeClock()
    fresh = [False]
    hands = Hands(clock=clock, fresh=lambda: fresh[0])
    hands.put([run(1, clock)])
    taken: list[Run | None] = []
    thread = threading.Thread(target=lambda: taken.append(hands.take(Worker("w", 0))))
    thread.start()
    while not hands.idle:
        threading.Event().wait(0.001)
    assert taken == []
    fresh[0] = True
    hands.hold(True)
    hands.hold(False)
    thread.join(60)
    assert [one.job.id.int for one in taken if one] == [1]


def test_the_end_of_an_older_run_is_not_that_of_the_newer() -> None:
    """A job may be claimed anew by the process whose first run of it still has not ended."""
    clock = FakeClock()
    hands = Hands(clock=clock)
    hands.put([run(1, clock), run(1, clock)])
    older, newer = hands.take(Worker("w", 0)), hands.take(Worker("x", 0))
    assert older is not None
    assert newer is not None
    hands.ended(older)
    assert hands.busy() == [newer]
