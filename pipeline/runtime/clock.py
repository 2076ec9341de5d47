"""Time, injected: the engine never asks the operating system for it directly.

`FakeClock` ships with the library, so that whoever embeds the engine can test without sleeping.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock for durations (seconds), a wall clock for stored times (microseconds).

    Asked from any thread.
    """

    def monotonic(self) -> float:
        """Seconds from some beginning; never set back."""
        ...

    def time_us(self) -> int:
        """Microseconds since 1970 UTC; may be set."""
        ...

    def wait(self, condition: threading.Condition, timeout_s: float | None) -> None:
        """Wait on `condition`, whose lock is held, at most `timeout_s` of this clock's time."""


class SystemClock:
    """The machine's clocks; safe from any thread."""

    monotonic = staticmethod(time.monotonic)

    def time_us(self) -> int:
        return time.time_ns() // 1000

    def wait(self, condition: threading.Condition, timeout_s: float | None) -> None:
        condition.wait(timeout_s)


class FakeClock:
    """Time that moves only by `advance`; waiting threads are woken to look at it again.

    Safe from any thread.  A timeout counts from the time that its thread saw last, so an advance in
    between is not missed.
    """

    # `_lock` guards the time and the waiting conditions; `_changed` tells of new waiters.  A waiter
    # holds its condition's lock and then takes `_lock`; `advance` never holds both.

    def __init__(self, *, start_us: int = 1_760_000_000_000_000) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._monotonic = 1000.0
        self._start_us = start_us
        self._waiting: dict[threading.Condition, int] = {}
        self._thread = threading.local()

    def monotonic(self) -> float:
        seen = self._thread.seen = self._monotonic
        return seen

    def time_us(self) -> int:
        return self._start_us + round((self._monotonic - 1000.0) * 1_000_000)

    def wait(self, condition: threading.Condition, timeout_s: float | None) -> None:
        seen = getattr(self._thread, "seen", self._monotonic)
        due = None if timeout_s is None else seen + timeout_s
        with self._lock:
            self._waiting[condition] = self._waiting.get(condition, 0) + 1
            self._changed.notify_all()
        try:
            if due is None or self._monotonic < due:
                condition.wait()
        finally:
            with self._lock:
                self._waiting[condition] -= 1
                if not self._waiting[condition]:
                    del self._waiting[condition]

    def await_waiting(self, threads: int, *, timeout_s: float = 30.0) -> None:
        """Wait, in real time, until so many threads wait by this clock; else TimeoutError.

        A test that advances the clock before its subject has looked at it would wait for ever.
        """
        with self._changed:
            enough = self._changed.wait_for(lambda: self._waiters() >= threads, timeout_s)
            if not enough:
                raise TimeoutError(f"{self._waiters()} of {threads} threads wait")

    def _waiters(self) -> int:
        return sum(self._waiting.values())

    def advance(self, seconds: float) -> None:
        """Move time on and wake everybody who waits by this clock."""
        with self._lock:
            self._monotonic += seconds
            conditions = list(self._waiting)
        for condition in conditions:
            with condition:
                condition.notify_all()
