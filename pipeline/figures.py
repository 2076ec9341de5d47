"""One pipeline's counts since its start; guarded by that pipeline's lock."""

from __future__ import annotations

from collections import Counter, deque

from pipeline.delivery.deliver import Outcome


class Figures:
    """Counts, the last error, and the durations of the recent attempts."""

    def __init__(self) -> None:
        self.flushes: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.retries = 0
        self.failures = 0
        # Steps of the autoscaler.
        self.scaled_up = 0
        self.scaled_down = 0
        self.failing = False
        self.settled_s = float("-inf")
        self.last_error = ""
        self.last_error_us = 0
        self.write_seconds_sum = 0.0
        self.writes = 0
        self._recent: deque[float] = deque(maxlen=512)

    def attempted(self, outcome: Outcome, time_us: int) -> None:
        self.writes += 1
        self.write_seconds_sum += outcome.seconds
        self._recent.append(outcome.seconds)
        self.failing = outcome.error is not None and outcome.retry_in_s is not None
        if outcome.error is not None:
            self.failures += 1
            self.last_error = f"{type(outcome.error).__name__}: {outcome.error}"
            self.last_error_us = time_us

    def write_quantiles(self) -> dict[str, float]:
        """p50, p95 and p99 of the recent attempts, in seconds."""
        recent = sorted(self._recent)
        if not recent:
            return {"p50": 0.0, "p95": 0.0, "p99": 0.0}
        last = len(recent) - 1
        return {f"p{q}": recent[round(last * q / 100)] for q in (50, 95, 99)}
