"""The claimer, a turn at a time: how long it waits for what."""

from __future__ import annotations

from typing import Any

from jobs.running.claimer import LIMITED_S, Claimer
from pipeline.runtime.clock import FakeClock


class Queue:
    """A store of which as many jobs can be claimed as `gives` says, while `waiting` is true."""

    waiting = True
    gives = 0

    def promote(self) -> int:
        return 0

    def give_back(self, runner: str, *, keep: object) -> int:
        return 0

    def has_queued(self) -> bool:
        return self.waiting

    def claim(self, runner: str, workers: str, limit: int, *, types: object) -> list[Any]:
        return [object()] * self.gives


def test_limits_are_waited_for_longer_and_longer_and_then_no_more() -> None:
    clock, queue = FakeClock(), Queue()
    claimer = Claimer(
        store=queue,  # type: ignore[arg-type]
        runner=lambda: "r",
        label="r",
        room=lambda: 4,
        take=lambda jobs: None,
        holding=set,
        types=lambda: [1],
        poll_s=1.0,
        audit_s=10.0,
        clock=clock,
        jitter=lambda: 0.5,
        retire=lambda: None,
    )
    pauses = []
    for _ in range(3):
        pauses.append(round(claimer._turn(), 4))
        clock.advance(pauses[-1])
    assert pauses == [LIMITED_S, 2 * LIMITED_S, 4 * LIMITED_S]
    queue.gives = 1
    assert round(claimer._turn(), 4) == LIMITED_S, "one came: the next may be soon"
    clock.advance(LIMITED_S)
    queue.waiting = False
    assert claimer._turn() > 0.5, "nothing waits: the poll is soon enough"
