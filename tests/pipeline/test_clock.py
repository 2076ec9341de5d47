"""The clocks, and batches ordered by when they are due."""

from __future__ import annotations

import threading
import time

import pytest

from pipeline.delivery.waiting import WaitingBatches
from pipeline.record import Batch
from pipeline.runtime.clock import FakeClock, SystemClock
from tests.pipeline.support import PATIENCE_S


def batch(number: int) -> Batch:
    return Batch(number=number, log_id="log", sink="a", reason="size", parts=[])


def test_the_system_clock_is_the_machines() -> None:
    clock = SystemClock()
    assert clock.monotonic() <= time.monotonic()
    assert abs(clock.time_us() - time.time_ns() // 1000) < 60_000_000
    condition = threading.Condition()
    with condition:
        clock.wait(condition, 0)


def test_fake_time_moves_only_by_advance() -> None:
    clock = FakeClock(start_us=5_000_000)
    before = clock.monotonic()
    clock.advance(1.5)
    assert clock.monotonic() - before == 1.5
    assert clock.time_us() == 6_500_000


def test_an_advance_between_a_look_and_a_wait_is_not_missed() -> None:
    clock, condition = FakeClock(), threading.Condition()
    clock.monotonic()
    clock._monotonic += 2  # as another thread's advance would, just now
    with condition:
        clock.wait(condition, 1.0)  # returns at once: the second has passed since the look


def test_waiters_are_woken_to_look_again() -> None:
    clock, condition = FakeClock(), threading.Condition()
    woken = threading.Event()

    def wait() -> None:
        with condition:
            clock.wait(condition, 10.0)
        woken.set()

    threading.Thread(target=wait, daemon=True).start()
    clock.await_waiting(1)
    assert not woken.is_set()
    clock.advance(0.1)
    assert woken.wait(PATIENCE_S)
    with pytest.raises(TimeoutError, match="0 of 1 threads wait"):
        clock.await_waiting(1, timeout_s=0)


def test_batches_come_back_when_due_the_longest_due_first() -> None:
    waiting = WaitingBatches()
    assert (waiting.due_s(0), waiting.pop_due(99), len(waiting)) == (None, None, 0)
    one, two, three = batch(1), batch(2), batch(3)
    waiting.push(one, 30)
    waiting.push(three, 10)
    waiting.push(two, 10)
    assert set(waiting) == {one, two, three}
    assert (waiting.due_s(4), waiting.due_s(12)) == (6, 0)
    assert waiting.pop_due(9) is None
    assert [waiting.pop_due(10), waiting.pop_due(10), waiting.pop_due(10)] == [two, three, None]
    waiting.collapse(11)
    assert waiting.pop_due(11) is one
