"""What a checker tells Prometheus, counted in plain numbers.

The checker's event loop counts (`count_probe` thousands of times a second, so it only adds to plain
lists; the keys are few: kinds and outcomes).  `healthmon.metricservice` writes the figures for the
server.  One thread writes each figure and others only read, so there is no lock: a reader may see
a count that is one older.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

DURATIONS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LAGS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Third parties' kinds beyond so many read as `other`.
MAX_KINDS = 50
MAX_REASONS = 20
# Of so many targets `probe_up` tells; the rest is counted.
MAX_TARGETS = 1_000
# Targets' names can be long, labels should not be.
MAX_LABEL_CHARS = 200
OTHER = "other"

_UP = {"up": 1.0, "degraded": 1.0, "down": 0.0}


class _Buckets:
    """A histogram in the making; `counts` has one more for what is beyond the last bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulated(self) -> list[tuple[str, float]]:
        so_far, buckets = 0, []
        for bound, count in zip((*self.bounds, float("inf")), tuple(self.counts), strict=True):
            so_far += count
            buckets.append(("+Inf" if bound == float("inf") else repr(float(bound)), float(so_far)))
        return buckets


class ProbeFigures(Collector):
    """A checker's figures; one a process."""

    def __init__(self) -> None:
        self._probes: dict[tuple[str, str], int] = {}
        self._durations: dict[str, _Buckets] = {}
        self._lags = _Buckets(LAGS_S)
        self._stalls = _Buckets(LAGS_S)
        self._dropped: dict[str, int] = {}
        self._gauges: dict[str, float] = {}
        self._statuses: dict[str, int] = {}
        self._up: dict[str, float] = {}
        self._omitted = 0

    def count_probe(self, kind: str, outcome: str, seconds: float, lag_s: float) -> None:
        durations = self._durations.get(kind)
        if durations is None:
            if len(self._durations) >= MAX_KINDS:
                kind = OTHER
            durations = self._durations.setdefault(kind, _Buckets(DURATIONS_S))
        durations.observe(seconds)
        key = (kind, outcome)
        self._probes[key] = self._probes.get(key, 0) + 1
        self._lags.observe(lag_s)

    def count_dropped(self, reason: str, count: int) -> None:
        if reason not in self._dropped and len(self._dropped) >= MAX_REASONS:
            reason = OTHER
        self._dropped[reason] = self._dropped.get(reason, 0) + count

    def count_stall(self, seconds: float) -> None:
        self._stalls.observe(seconds)

    def note_status(self, target: str, status: str) -> None:
        """A change, until all statuses are read again."""
        name = target[:MAX_LABEL_CHARS]
        if name in self._up or len(self._up) < MAX_TARGETS:
            if status in _UP:
                self._up[name] = _UP[status]
            else:
                self._up.pop(name, None)

    def note_checker(
        self,
        *,
        in_flight: int,
        parked: int,
        waiting_results: int,
        waiting_flips: int,
        loop_lag_s: float,
    ) -> None:
        self._gauges = {
            "probes_in_flight": float(in_flight),
            "probes_parked": float(parked),
            "probe_results_waiting": float(waiting_results),
            "probe_flips_waiting": float(waiting_flips),
            "checker_loop_lag_seconds": loop_lag_s,
        }

    def note_statuses(
        self, statuses: dict[str, int], some: list[tuple[str, str]], total: int
    ) -> None:
        """How many targets have each status, and the status of the first of them."""
        self._statuses = statuses
        self._omitted = max(0, total - len(some))
        self._up = {
            name[:MAX_LABEL_CHARS]: _UP[status]
            for name, status in some[:MAX_TARGETS]
            if status in _UP
        }

    def collect(self) -> Iterator[Metric]:
        probes = CounterMetricFamily(
            "probes", "Probes made, by what they found.", labels=("kind", "outcome")
        )
        for key, count in self._probes.copy().items():
            probes.add_metric(key, count)
        yield probes
        durations = HistogramMetricFamily(
            "probe_duration_seconds", "How long probes took.", labels=("kind",)
        )
        for kind, buckets in self._durations.copy().items():
            durations.add_metric((kind,), buckets.cumulated(), buckets.total)
        yield durations
        yield _histogram(
            "probe_schedule_lag_seconds", "How late probes began after they were due.", self._lags
        )
        yield _histogram(
            "checker_stall_seconds", "Standstills of the checker's event loop.", self._stalls
        )
        dropped = CounterMetricFamily(
            "probe_results_dropped",
            "Results that no history will have, by the reason.",
            labels=("reason",),
        )
        for reason, count in self._dropped.copy().items():
            dropped.add_metric((reason,), count)
        yield dropped
        for name, value in self._gauges.items():
            yield GaugeMetricFamily(name, _GAUGES[name], value)
        targets = GaugeMetricFamily("targets", "Targets by their status.", labels=("status",))
        for status, count in self._statuses.items():
            targets.add_metric((status,), count)
        yield targets
        up = GaugeMetricFamily(
            "probe_up",
            f"1 for a target that is up or degraded, 0 for one that is down; the first "
            f"{MAX_TARGETS} targets.",
            labels=("target",),
        )
        for name, value in self._up.copy().items():
            up.add_metric((name,), value)
        yield up
        yield GaugeMetricFamily(
            "probe_up_omitted", "Targets that `probe_up` does not tell of.", self._omitted
        )


def _histogram(name: str, text: str, buckets: _Buckets) -> Metric:
    family = HistogramMetricFamily(name, text)
    family.add_metric((), buckets.cumulated(), buckets.total)
    return family


_GAUGES = {
    "probes_in_flight": "Probes under way.",
    "probes_parked": "Targets that are due and wait for room: for their host, group, or at all.",
    "probe_results_waiting": "Results that wait to be written to the log.",
    "probe_flips_waiting": "Changes of status that wait to be written to the log.",
    "checker_loop_lag_seconds": "How far the checker's event loop runs behind.",
}
OWN = frozenset(
    {
        "probes", "probe_duration_seconds", "probe_schedule_lag_seconds", "checker_stall_seconds",
        "probe_results_dropped", "targets", "probe_up", "probe_up_omitted", *_GAUGES,
    }
)  # fmt: skip

figures = ProbeFigures()
count_probe = figures.count_probe
count_dropped = figures.count_dropped
count_stall = figures.count_stall
note_status = figures.note_status
note_checker = figures.note_checker
