"""What results come to, by target: counts by outcome, latencies as a histogram.

Latencies are those of probes that succeeded: how long a failure took says nothing of the service.
Pure; not shared by threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from healthmon.history.histogram import Histogram
from healthmon.probes.kind import DEGRADED, FAILED, OK


@dataclass(slots=True)
class Tally:
    """Of one target over one stretch of time."""

    ok: int = 0
    degraded: int = 0
    failed: int = 0
    void: int = 0
    latency_sum_ms: float = 0.0
    latency_max_ms: float = 0.0
    histogram: Histogram = field(default_factory=Histogram)

    @property
    def succeeded(self) -> int:
        return self.ok + self.degraded

    @property
    def count(self) -> int:
        """The results that say something of the target."""
        return self.ok + self.degraded + self.failed

    def add(self, outcome: str, latency_ms: float) -> None:
        """Count one result."""
        if outcome == OK:
            self.ok += 1
        elif outcome == DEGRADED:
            self.degraded += 1
        else:
            if outcome == FAILED:
                self.failed += 1
            else:
                self.void += 1
            return
        self.latency_sum_ms += latency_ms
        if latency_ms > self.latency_max_ms:
            self.latency_max_ms = latency_ms
        self.histogram.add(latency_ms)

    def merge(
        self,
        ok: int,
        degraded: int,
        failed: int,
        void: int,
        latency_sum_ms: float,
        latency_max_ms: float,
        histogram: bytes,
    ) -> None:
        """Count what a rollup holds, as it is stored.  Raises HistogramError."""
        if ok or degraded:
            self.histogram.merge(histogram)
        self.ok += ok
        self.degraded += degraded
        self.failed += failed
        self.void += void
        self.latency_sum_ms += latency_sum_ms
        if latency_max_ms > self.latency_max_ms:
            self.latency_max_ms = latency_max_ms

    def row(self) -> tuple[int, int, int, int, float, float, bytes]:
        """As `merge` takes it."""
        return (
            self.ok,
            self.degraded,
            self.failed,
            self.void,
            self.latency_sum_ms,
            self.latency_max_ms,
            self.histogram.to_bytes(),
        )


def tally_results(rows: Iterable[tuple[int, str, float]]) -> dict[int, Tally]:
    """Of (target, outcome, latency)."""
    tallies: dict[int, Tally] = {}
    for target_id, outcome, latency_ms in rows:
        tally = tallies.get(target_id)
        if tally is None:
            tally = tallies[target_id] = Tally()
        tally.add(outcome, latency_ms)
    return tallies


def tally_rollups(rows: Iterable[Sequence[Any]]) -> dict[int, Tally]:
    """Of (target, and what `Tally.row` gives)."""
    tallies: dict[int, Tally] = {}
    for target_id, *row in rows:
        tally = tallies.get(target_id)
        if tally is None:
            tally = tallies[target_id] = Tally()
        tally.merge(*row)
    return tallies
