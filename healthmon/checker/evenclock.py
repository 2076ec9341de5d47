"""The wall's time, running on evenly: setting the machine's clock shifts what is shown, not what is
measured.

Used on the event loop alone.
"""

from __future__ import annotations

from pipeline.runtime.clock import Clock


class EvenClock:
    """Stored times and the grid are the wall's; everything else is counted monotonically."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.wall_ahead_s = self._ahead_s()

    def _ahead_s(self) -> float:
        return self._clock.time_us() / 1e6 - self._clock.monotonic()

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def now_us(self) -> int:
        """The time that is stored, in microseconds since 1970."""
        return self.stored_us(self._clock.monotonic())

    def stored_us(self, monotonic_s: float) -> int:
        """What is stored for a monotonic time."""
        return round((monotonic_s + self.wall_ahead_s) * 1e6)

    def correct(self) -> float:
        """Follow the wall's clock from now on; returns by how many seconds it had moved."""
        ahead = self._ahead_s()
        moved, self.wall_ahead_s = ahead - self.wall_ahead_s, ahead
        return moved
