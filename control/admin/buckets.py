"""Samples become histories: counts added up in buckets of time, over all processes.

A sample's counts are spread evenly over the time it tells of; its gauges are how things stood at
its end. Where no process reported, a bucket is None: a gap, not a zero. Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from control.admin.samples import COUNTS, GAUGES, LATENCIES, PipelineHistory, Window

# A process that had none of a pipeline's records for as long counts as idle.
RESTING_S = 60.0


@dataclass(kw_only=True)
class _Buckets:
    name: str
    count: int
    step_s: float
    # Each by process: counts that fell into a bucket, and the seconds of it that were told of.
    sums: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    covered: dict[str, list[float]] = field(default_factory=dict)
    gauges: dict[str, list[dict[str, int] | None]] = field(default_factory=dict)
    slowest: dict[str, list[float | None]] = field(default_factory=dict)
    steps: list[tuple[int, int]] = field(default_factory=list)
    peaks: list[float | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.steps = [(0, 0)] * self.count
        self.peaks = [None] * self.count
        self.slowest = {name: [None] * self.count for name in LATENCIES}

    def add(self, row: dict[str, Any], window: Window) -> None:
        process = str(row["process_id"])
        at = row["at"]
        interval = row["interval_s"]
        assert isinstance(at, datetime)
        assert isinstance(interval, float)
        interval = max(interval, 0.001)
        ends = at.timestamp()
        covered = self.covered.setdefault(process, [0.0] * self.count)
        gauges = self.gauges.setdefault(process, [None] * self.count)
        gauge = {name: int(row[name]) for name in GAUGES}
        ended = window.index_of(ends)
        sums = self.sums.setdefault(process, {name: [0.0] * self.count for name in COUNTS})
        for index, seconds in window.overlaps(ends - interval, ends):
            covered[index] += seconds
            for name in COUNTS:
                sums[name][index] += float(row[name]) * seconds / interval
            # What it tells of is how things stood at its end; elsewhere it is better than nothing.
            if index == ended or gauges[index] is None:
                gauges[index] = gauge
            if index == ended or self.peaks[index] is None:
                self.peaks[index] = max(self.peaks[index] or 0.0, float(row["peak_fill"]))
            if row["batches"]:
                for name in LATENCIES:
                    value = row[name]
                    known = self.slowest[name][index]
                    if isinstance(value, float):
                        self.slowest[name][index] = value if known is None else max(known, value)

        if ended is not None:
            # A step is taken at one moment: it is not spread out.
            up, down = self.steps[ended]
            self.steps[ended] = up + int(row["scaled_up"]), down + int(row["scaled_down"])

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

    @cached_property
    def active(self) -> dict[str, list[bool]]:
        """In which buckets each process had any of its records, or some shortly before or after.

        Every process runs every pipeline: the workers of one that gets nothing say nothing, and its
        empty queue would halve the fill of another.
        """
        reach = max(round(RESTING_S / self.step_s), 1)
        active = {}
        for process, gauges in self.gauges.items():
            sums = self.sums[process]
            busy = [
                any(sums[name][index] for name in ("accepted", "stored", "refused"))
                or bool(gauge and gauge["held_records"])
                for index, gauge in enumerate(gauges)
            ]
            active[process] = [
                any(busy[max(index - reach, 0) : index + reach + 1]) for index in range(self.count)
            ]
        return active

    @cached_property
    def told(self) -> list[list[dict[str, int]]]:
        """What the active processes say of themselves in each bucket, or all where none is."""
        ever = {process for process, active in self.active.items() if any(active)}
        return [self._told(index, ever) for index in range(self.count)]

    def _told(self, index: int, ever: set[str]) -> list[dict[str, int]]:
        known = [
            (process, gauge)
            for process, gauges in self.gauges.items()
            if (gauge := gauges[index]) is not None
        ]
        for chosen in (
            [gauge for process, gauge in known if self.active[process][index]],
            [gauge for process, gauge in known if process in ever],
        ):
            if chosen:
                return chosen
        return [gauge for _, gauge in known]

    def fill(self) -> list[float | None]:
        """How full the fullest process is: each refuses for itself."""
        return [
            max(
                (
                    gauge["held_records"] / gauge["capacity_records"]
                    for gauge in gauges
                    if gauge["capacity_records"]
                ),
                default=None,
            )
            for gauges in self.told
        ]

    def peak(self) -> list[float | None]:
        """How full the fullest process was at most; never less than what a sample found."""
        return [
            None if peak is None else max(peak, fill or 0.0)
            for peak, fill in zip(self.peaks, self.fill(), strict=True)
        ]

    def gauge(self, name: str, over: Callable[[Iterable[int]], int]) -> list[float | None]:
        """One gauge, put together over the active processes."""
        return [over([gauge[name] for gauge in gauges]) if gauges else None for gauges in self.told]

    def total(self, name: str) -> list[float]:
        """What was counted in each bucket, over the processes."""
        columns = zip(*(sums[name] for sums in self.sums.values()), strict=True)
        return [sum(column) for column in columns]

    def per_batch(self) -> list[float | None]:
        """How many records a batch held, where any was stored."""
        pairs = zip(self.total("stored"), self.total("batches"), strict=True)
        return [stored / batches if stored and batches else None for stored, batches in pairs]


def bucketed(rows: Iterable[dict[str, Any]], window: Window) -> list[PipelineHistory]:
    """Samples as histories, in order of name."""
    pipelines: dict[str, _Buckets] = {}
    for row in rows:
        key = str(row["key"])
        buckets = pipelines.get(key)
        if buckets is None:
            buckets = pipelines[key] = _Buckets(
                name=str(row["name"]), count=window.count, step_s=window.step_s
            )
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
            shed=buckets.rates("shed", window.step_s),
            fill=buckets.fill(),
            peak=buckets.peak(),
            held_bytes=buckets.gauge("held_bytes", max),
            workers=buckets.gauge("workers", sum),
            write_limit=buckets.gauge("write_limit", sum),
            batch_limit=buckets.gauge("batch_limit", max),
            per_batch=buckets.per_batch(),
            steps=buckets.steps,
            p50=buckets.slowest["write_p50_s"],
            p95=buckets.slowest["write_p95_s"],
            p99=buckets.slowest["write_p99_s"],
        )
        for key, buckets in pipelines.items()
    ]
    return sorted(histories, key=lambda history: history.name)
