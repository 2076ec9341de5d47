"""What the feed tells before the checker has the target: told again, in order, and not for ever."""

from __future__ import annotations

import pytest

from healthmon.heartbeats.feed import Found
from healthmon.heartbeats.unheard import GIVEN_UP_AFTER_S, Unheard
from healthmon.probes.kind import FAILED, OK, Result
from healthmon.targets.models import slot_of
from pipeline.runtime.clock import FakeClock


class Ear:
    """A checker that has some targets, and holds some slots."""

    def __init__(self) -> None:
        self.here: set[int] = set()
        self.held = {slot_of(1): 1, slot_of(2): 1}
        self.heard: list[tuple[int, int, str]] = []

    def hear(self, target_id: int, at_us: int, result: Result) -> bool:
        if target_id not in self.here:
            return False
        self.heard.append((target_id, at_us, result.outcome))
        return True


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def unheard(ear: Ear, clock: FakeClock) -> Unheard:
    return Unheard(hear=ear.hear, held=lambda: ear.held, clock=clock)


def found(target_id: int, at_us: int, outcome: str = FAILED) -> Found:
    return Found(target_id, at_us, Result(outcome=outcome))


def test_it_is_told_again_until_it_is_heard_and_then_no_more(unheard: Unheard, ear: Ear) -> None:
    # What it tells of may be long past: a takeover tells the last ping of a day ago.
    unheard.tell(found(1, 5))
    unheard.tell(found(2, 6))
    unheard.beat()
    assert ear.heard == []
    ear.here = {1}
    unheard.beat()
    unheard.beat()
    assert ear.heard == [(1, 5, FAILED)]
    ear.here = {1, 2}
    unheard.beat()
    assert ear.heard == [(1, 5, FAILED), (2, 6, FAILED)]
    assert len(unheard) == 0


def test_what_is_older_is_not_told_after_what_is_newer(unheard: Unheard, ear: Ear) -> None:
    unheard.tell(found(1, 5))
    ear.here = {1}
    unheard.tell(found(1, 9, OK))
    unheard.beat()
    assert ear.heard == [(1, 9, OK)]


def test_while_no_lease_is_held_it_waits(unheard: Unheard, ear: Ear) -> None:
    held, ear.held = ear.held, {}
    unheard.tell(found(1, 5))
    unheard.beat()
    assert len(unheard) == 1
    ear.held, ear.here = held, {1}
    unheard.beat()
    assert ear.heard == [(1, 5, FAILED)]


def test_it_ends_with_the_slot_and_with_patience(
    unheard: Unheard, ear: Ear, clock: FakeClock
) -> None:
    unheard.tell(found(1, 5))
    unheard.tell(found(2, 5))
    del ear.held[slot_of(1)]
    unheard.beat()
    assert len(unheard) == 1
    clock.advance(GIVEN_UP_AFTER_S + 1)
    unheard.beat()
    assert len(unheard) == 0
