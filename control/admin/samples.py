"""The last minutes of every pipeline, from the samples that every process writes.

A sample tells what happened between `at - interval_s` and `at`. Its counts are spread evenly over
that time and added up in buckets, over all processes; where no process reported, a bucket is None:
a gap, not a zero. Runs in request threads; reads, and holds no state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from control.admin.charts import Values

SPAN = timedelta(minutes=15)
STEP_S = 10.0
# A process writes every 5 s; the newest bucket is drawn only when its samples must have come.
SETTLE_S = 7.0
# No pipeline reports more often than this many times in the window: bounds the rows that are read.
MAX_ROWS = 50_000

_COUNTS = ("accepted", "stored", "refused", "dropped")
_GAUGES = ("held_records", "capacity_records")
_LATENCIES = ("write_p50_s", "write_p95_s", "write_p99_s")
_FIELDS = (
    "process_id",
    "key",
    "name",
    "at",
    "interval_s",
    "batches",
    *_COUNTS,
    *_GAUGES,
    *_LATENCIES,
)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Buckets of `step_s` seconds that end at `ends_at`."""

    ends_at: datetime
    step_s: float = STEP_S
    count: int = int(SPAN.total_seconds() / STEP_S)

    @classmethod
    def until(cls, now: datetime) -> Window:
        settled = (now.timestamp() - SETTLE_S) // STEP_S * STEP_S
        return cls(ends_at=datetime.fromtimestamp(settled, tz=UTC))

    @property
    def starts_at(self) -> datetime:
        return self.ends_at - timedelta(seconds=self.count * self.step_s)

    def overlaps(self, starts: float, ends: float) -> Iterable[tuple[int, float]]:
        """The buckets that a stretch of time touches, each with the seconds it covers there."""
        origin = self.starts_at.timestamp()
        first = max(int((starts - origin) // self.step_s), 0)
        last = min(int((ends - origin) // self.step_s), self.count - 1)
        for index in range(first, last + 1):
            left = origin + index * self.step_s
            seconds = min(ends, left + self.step_s) - max(starts, left)
            if seconds > 0:
                yield index, seconds


@dataclass(kw_only=True)
class PipelineHistory:
    """One pipeline over the window, all processes together. Rates per second; None is a gap."""

    key: str
    name: str
    accepted: Values = ()
    stored: Values = ()
    refused: Values = ()
    dropped: Values = ()
    fill: Values = ()
    p50: Values = ()
    p95: Values = ()
    p99: Values = ()


@dataclass(kw_only=True)
class _Buckets:
    name: str
    count: int
    # Each by process: counts that fell into a bucket, and the seconds of it that were told of.
    sums: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    covered: dict[str, list[float]] = field(default_factory=dict)
    held: dict[str, list[tuple[int, int] | None]] = field(default_factory=dict)
    slowest: dict[str, list[float | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.slowest = {name: [None] * self.count for name in _LATENCIES}

    def add(self, row: dict[str, Any], window: Window) -> None:
        process = str(row["process_id"])
        at = row["at"]
        interval = row["interval_s"]
        assert isinstance(at, datetime)
        assert isinstance(interval, float)
        interval = max(interval, 0.001)
        ends = at.timestamp()
        covered = self.covered.setdefault(process, [0.0] * self.count)
        held = self.held.setdefault(process, [None] * self.count)
        sums = self.sums.setdefault(process, {name: [0.0] * self.count for name in _COUNTS})
        for index, seconds in window.overlaps(ends - interval, ends):
            covered[index] += seconds
            for name in _COUNTS:
                sums[name][index] += float(row[name]) * seconds / interval
            held[index] = (int(row["held_records"]), int(row["capacity_records"]))
            if row["batches"]:
                for name in _LATENCIES:
                    value = row[name]
                    known = self.slowest[name][index]
                    if isinstance(value, float):
                        self.slowest[name][index] = value if known is None else max(known, value)

    def rates(self, name: str, step_s: float) -> list[float | None]:
        """The processes' rates added up, each over the time that it told of.

        A process that told of less than half a bucket says too little to be drawn there.
        """
        rates: list[float | None] = [None] * self.count
        for process, covered in self.covered.items():
            for index, seconds in enumerate(covered):
                if seconds >= step_s / 2:
                    rate = self.sums[process][name][index] / seconds
                    rates[index] = (rates[index] or 0.0) + rate
        return rates

    def fill(self) -> list[float | None]:
        ratios: list[float | None] = []
        for index in range(self.count):
            gauges = [held[index] for held in self.held.values()]
            known = [gauge for gauge in gauges if gauge is not None]
            capacity = sum(one[1] for one in known)
            ratios.append(sum(one[0] for one in known) / capacity if capacity else None)
        return ratios


def bucketed(rows: Iterable[dict[str, Any]], window: Window) -> list[PipelineHistory]:
    """Samples as histories, in order of name."""
    pipelines: dict[str, _Buckets] = {}
    for row in rows:
        key = str(row["key"])
        buckets = pipelines.get(key)
        if buckets is None:
            buckets = pipelines[key] = _Buckets(name=str(row["name"]), count=window.count)
        buckets.name = str(row["name"])
        buckets.add(row, window)
    histories = [
        PipelineHistory(
            key=key,
            name=buckets.name,
            accepted=buckets.rates("accepted", window.step_s),
            stored=buckets.rates("stored", window.step_s),
            refused=buckets.rates("refused", window.step_s),
            dropped=buckets.rates("dropped", window.step_s),
            fill=buckets.fill(),
            p50=buckets.slowest["write_p50_s"],
            p95=buckets.slowest["write_p95_s"],
            p99=buckets.slowest["write_p99_s"],
        )
        for key, buckets in pipelines.items()
    ]
    return sorted(histories, key=lambda history: history.name)


def read_rows(window: Window) -> list[dict[str, Any]]:
    """The window's samples, and those of the moments after it."""
    from control.models import PipelineSample

    return list(
        PipelineSample.objects.filter(at__gt=window.starts_at)
        .order_by("at")
        .values(*_FIELDS)[:MAX_ROWS]
    )
