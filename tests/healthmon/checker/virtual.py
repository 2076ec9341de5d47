"""An event loop whose time passes only while nothing is ready: hours of schedule in milliseconds.

The loop's time is the clock's; `freeze` lets time pass while the loop stands still, as a stopped
process sees it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH_US = 1_800_000_000_000_000


class VirtualClock:
    """A `pipeline.runtime.clock.Clock` whose wall may be set apart from its monotonic time."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.wall_step_us = 0

    def monotonic(self) -> float:
        return self.now_s

    def time_us(self) -> int:
        return EPOCH_US + round(self.now_s * 1e6) + self.wall_step_us


class _Selector(selectors.SelectSelector):
    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout:
            self._clock.now_s += timeout
        if not ready and timeout is None:
            raise RuntimeError("nothing will ever happen: the test waits for nothing")
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: VirtualClock) -> None:
        self._virtual = clock
        super().__init__(_Selector(clock))

    def time(self) -> float:
        return self._virtual.now_s


class Time:
    """A loop that runs only while time is let pass: between, the test may do as it likes."""

    def __init__(self, clock: VirtualClock) -> None:
        self.loop = VirtualLoop(clock)

    def passes(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def close(self) -> None:
        while left := asyncio.all_tasks(self.loop):  # one that ends may let another in
            for task in left:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self.loop.close()


def run(clock: VirtualClock, main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end in virtual time."""
    time = Time(clock)
    try:
        return time.loop.run_until_complete(main)
    finally:
        time.close()


def freeze(clock: VirtualClock, seconds: float) -> None:
    """Let time pass in which the loop does nothing."""
    clock.now_s += seconds
