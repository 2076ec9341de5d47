"""A thread that makes rounds: when it makes them, called early, failing, and ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pipeline.runtime.clock import FakeClock
from pipeline.runtime.rounds import Rounds
from tests.pipeline.support import PATIENCE_S


class Beat:
    """Counts the rounds; each says that the next is due after what the script says."""

    def __init__(self, *rests: float | BaseException) -> None:
        self._changed = threading.Condition()
        self._rests = list(rests)
        self.count = 0

    def __call__(self) -> float:
        with self._changed:
            self.count += 1
            self._changed.notify_all()
            rest = self._rests.pop(0) if self._rests else 1.0
        if isinstance(rest, BaseException):
            raise rest
        return rest

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.count >= count, PATIENCE_S)


@pytest.fixture
def started() -> Iterator[list[Rounds]]:
    running: list[Rounds] = []
    yield running
    for one in running:
        assert one.stop(PATIENCE_S)


def rounds(beat: Beat, clock: FakeClock, started: list[Rounds], *, first_s: float = 0.0) -> Rounds:
    one = Rounds(name="rounds-x", round=beat, clock=clock, first_s=first_s)
    started.append(one)
    one.start()
    return one


def test_each_round_says_when_the_next_is_due(clock: FakeClock, started: list[Rounds]) -> None:
    beat = Beat(1.0, 5.0)
    rounds(beat, clock, started)
    for count, rest_s in ((1, 1.0), (2, 5.0), (3, 1.0)):
        beat.wait_for(count)
        clock.await_waiting(1)
        clock.advance(rest_s - 0.1)
        clock.await_waiting(1)
        assert beat.count == count
        clock.advance(0.1)
    beat.wait_for(4)


def test_the_first_round_may_have_to_wait(clock: FakeClock, started: list[Rounds]) -> None:
    beat = Beat()
    rounds(beat, clock, started, first_s=2.0)
    clock.await_waiting(1)
    assert beat.count == 0
    clock.advance(2.0)
    beat.wait_for(1)


def test_a_call_brings_the_next_round_forward(clock: FakeClock, started: list[Rounds]) -> None:
    beat = Beat(3600.0)
    one = rounds(beat, clock, started)
    beat.wait_for(1)
    one.call()
    beat.wait_for(2)
    clock.await_waiting(1)
    assert beat.count == 2, "a call counts once"


def test_a_call_before_the_start_is_not_forgotten(clock: FakeClock) -> None:
    beat = Beat()
    one = Rounds(name="rounds-x", round=beat, clock=clock, first_s=3600.0)
    one.call()
    one.start()
    beat.wait_for(1)
    assert one.stop(PATIENCE_S)


def test_a_round_that_fails_is_told_and_made_again(
    clock: FakeClock, started: list[Rounds], caplog: pytest.LogCaptureFixture
) -> None:
    beat = Beat(OSError("no luck"))
    rounds(beat, clock, started)
    beat.wait_for(1)
    clock.await_waiting(1)
    clock.advance(1.0)
    beat.wait_for(2)
    assert "thread rounds-x: a round failed" in caplog.text


def test_a_round_that_is_always_due_does_not_spin(clock: FakeClock, started: list[Rounds]) -> None:
    beat = Beat(*[0.0] * 100)
    rounds(beat, clock, started)
    for count in (1, 2, 3):
        beat.wait_for(count)
        clock.await_waiting(1)
        assert beat.count == count
        clock.advance(0.02)


def test_a_round_may_end_its_own_thread(clock: FakeClock) -> None:
    ended = threading.Event()

    def last() -> float:
        assert one.stop(PATIENCE_S), "it does not wait for itself"
        ended.set()
        return 1.0

    one = Rounds(name="rounds-x", round=last, clock=clock)
    one.start()
    assert ended.wait(PATIENCE_S)
    assert one.stop(PATIENCE_S)


def test_stopping_is_final_and_comes_in_any_order(clock: FakeClock) -> None:
    beat = Beat()
    one = Rounds(name="rounds-y", round=beat, clock=clock)
    assert one.stop(PATIENCE_S)
    one.start()
    one.call()
    assert one.stop(PATIENCE_S)
    assert beat.count == 0
    assert not any(thread.name == "rounds-y" for thread in threading.enumerate())


def test_a_stop_returns_at_its_time_while_a_round_hangs(clock: FakeClock) -> None:
    go, begun = threading.Event(), threading.Event()

    def hang() -> float:
        begun.set()
        assert go.wait(PATIENCE_S)
        return 1.0

    one = Rounds(name="rounds-x", round=hang, clock=clock)
    one.start()
    assert begun.wait(PATIENCE_S)
    assert not one.stop(0.0)
    go.set()
    assert one.stop(PATIENCE_S)
