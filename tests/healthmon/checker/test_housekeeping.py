"""One checker keeps house for all: when, and that one task's failure is its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from healthmon.checker.housekeeping import Housekeeping, register_task, unregister_task
from tests.healthmon.checker.virtual import VirtualClock

WAIT_S = 180.0

Register = Callable[..., None]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[Register]:
    """Tasks of the test's own, and none of the rooms'."""
    from control.ports.registry import Registry

    monkeypatch.setattr("healthmon.checker.housekeeping._tasks", Registry(what="task"))
    monkeypatch.setattr("healthmon.checker.housekeeping.drop_stale_connections", lambda: None)
    yield register_task
    unregister_task("one")


def _house(clock: VirtualClock, *, ours: bool = True) -> Housekeeping:
    return Housekeeping(is_ours=lambda: ours, clock=clock)  # type: ignore[arg-type]


def test_each_task_runs_when_it_is_due(clock: VirtualClock, register: Register) -> None:
    ran: list[str] = []
    register("often", 10.0, lambda: ran.append("often"))
    register("seldom", 60.0, lambda: ran.append("seldom"))
    house = _house(clock)
    house.beat()
    assert sorted(ran) == ["often", "seldom"]
    clock.now_s += 9
    house.beat()
    assert len(ran) == 2
    clock.now_s += 1
    house.beat()
    assert ran.count("often") == 2
    assert ran.count("seldom") == 1


def test_whoever_does_not_hold_the_first_slot_does_nothing(
    clock: VirtualClock, register: Register
) -> None:
    ran: list[int] = []
    register("one", 1.0, lambda: ran.append(1))
    _house(clock, ours=False).beat()
    assert ran == []


def test_a_task_that_fails_is_told_of_once_and_stops_no_other(
    clock: VirtualClock, register: Register, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[int] = []
    failing = [True]

    def fail() -> None:
        if failing[0]:
            raise ValueError("odd")

    register("bad", 1.0, fail)
    register("good", 1.0, lambda: ran.append(1))
    house = _house(clock)
    for _ in range(5):
        house.beat()
        clock.now_s += 1
    assert len(ran) == 5
    assert [one.message for one in caplog.records].count("housekeeping failed") == 1
    failing[0] = False
    house.beat()
    failing[0] = True
    clock.now_s += 1
    house.beat()
    assert [one.message for one in caplog.records].count("housekeeping failed") == 2


def test_it_starts_and_stops_in_any_order(clock: VirtualClock, register: Register) -> None:
    ran = threading.Event()
    register("one", 1.0, ran.set)
    house = _house(clock)
    assert house.stop(WAIT_S)
    house.start()
    house.start()
    assert ran.wait(WAIT_S)
    assert house.stop(WAIT_S)
    assert house.stop(WAIT_S)
