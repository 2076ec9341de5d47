"""Time, injected: the engine never asks the operating system for it directly.

`FakeClock` ships with the library, so that whoever embeds the engine can test without sleeping.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock for durations (seconds), a wall clock for stored times (microseconds)."""

    def monotonic(self) -> float: ...

    def time_us(self) -> int: ...

    def wait(self, condition: threading.Condition, timeout_s: float | None) -> None:
        """Wait on `condition`, whose lock is held, at most `timeout_s` of this clock's time."""


class SystemClock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)

    def time_us(self) -> int:
        return time.time_ns() // 1000

    def wait(self, condition: threading.Condition, timeout_s: float | None) -> None:
        condition.wait(timeout_s)


class FakeClock:
    """Time that moves only by `advance`; waiting threads are woken to look at it again.

    `_lock` guards the time and the waiting conditions.  A waiter holds its condition's lock and
    then takes `_lock`; `advance` never holds both.
    """

    def __init__(self, *, start_us: int = 1_760_000_000_000_000) -> None:
        self._lock = threading.Lock()
        self._monotonic = 1000.0
        self._start_us = start_us
        self._waiting: dict[threading.Condition, int] = {}

    def monotonic(self) -> float:
        return self._monotonic

    def time_us(self) -> int:
        return self._start_us + round((self._monotonic - 1000.0) * 1_000_000)

    def wait(self, condition: threading.Condition, timeout_s: float | None) -> None:
        due = None if timeout_s is None else self._monotonic + timeout_s
        with self._lock:
            self._waiting[condition] = self._waiting.get(condition, 0) + 1
        try:
            if due is None or self._monotonic < due:
                condition.wait()
        finally:
            with self._lock:
                self._waiting[condition] -= 1
                if not self._waiting[condition]:
                    del self._waiting[condition]

    def advance(self, seconds: float) -> None:
        """Move time on and wake everybody who waits by this clock."""
        with self._lock:
            self._monotonic += seconds
            conditions = list(self._waiting)
        for condition in conditions:
            with condition:
                condition.notify_all()
