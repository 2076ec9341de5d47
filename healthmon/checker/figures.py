"""What a checker counts of itself; written on the event loop, read from any thread."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

LAGS_KEPT = 10_000


@dataclass(slots=True)
class Figures:
    """Counts since the start, and how late the last probes began."""

    probes: int = 0
    missed_windows: int = 0
    voided: int = 0
    flips: int = 0
    in_flight_most: int = 0
    lags_s: deque[float] = field(default_factory=lambda: deque(maxlen=LAGS_KEPT))

    def lag_s(self, share: float) -> float:
        """So late began that share of the last probes, or less; 0 when there were none."""
        lags = sorted(self.lags_s.copy())
        return lags[min(int(len(lags) * share), len(lags) - 1)] if lags else 0.0
