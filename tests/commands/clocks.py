"""Clocks for clients under test: time that moves only because somebody slept."""

from __future__ import annotations


class SleepingClock:
    """Sleeping moves it at once. Keeps what was slept, so that a test can read the waits."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self._now = 1000.0

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._now += seconds

    def advance(self, seconds: float) -> None:
        self._now += seconds
