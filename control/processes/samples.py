"""Samples: what each pipeline did in each interval, from the differences of its counters.

Taken and written by the heart's thread. While the database is away samples wait in memory, the
oldest are given up beyond a bound, and the figures that follow are not affected.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from control.ports.stats import stats as pipeline_stats
from control.ports.stats import take_peaks
from control.processes.models import PipelineSample

logger = logging.getLogger(__name__)

INTERVAL_S = 5.0
MAX_WAITING = 2_000
_COUNTERS = (
    "accepted",
    "stored",
    "refused",
    "dropped",
    "shed",
    "batches",
    "scaled_up",
    "scaled_down",
)


class Sampler:
    def __init__(
        self,
        *,
        process_id: UUID,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        stats: Callable[[], Mapping[str, Any]] = pipeline_stats,
        peaks: Callable[[], Mapping[str, float]] = take_peaks,
    ) -> None:
        self._process_id = process_id
        self._now = now
        self._monotonic = monotonic
        self._stats = stats
        self._peaks = peaks
        self._last_at = monotonic()
        self._last: dict[str, dict[str, int]] = {}
        self._waiting: deque[PipelineSample] = deque()

    def take(self) -> None:
        """Sample every pipeline and write what waits. Raises when the database is away."""
        now, at = self._monotonic(), self._now()
        interval = now - self._last_at
        pipelines = self._stats().get("pipelines", [])
        if interval > 0:
            self._last_at = now
            peaks = self._peaks()
            seen: dict[str, dict[str, int]] = {}
            for pipeline in pipelines:
                key = str(pipeline.get("key", ""))
                seen[key] = counters = _counters(pipeline)
                sample = self._sample(
                    pipeline, key, counters, self._last.get(key, {}), at, interval
                )
                sample.peak_fill = peaks.get(key, 0.0)
                self._waiting.append(sample)
            self._last = seen
        self._bound()
        self._flush()

    def _flush(self) -> None:
        waiting = list(self._waiting)
        if waiting:
            PipelineSample.objects.bulk_create(waiting, batch_size=500)
            self._waiting.clear()

    def _bound(self) -> None:
        excess = len(self._waiting) - MAX_WAITING
        if excess > 0:
            for _ in range(excess):
                self._waiting.popleft()
            logger.warning("samples given up while the database is away", extra={"count": excess})

    def _sample(
        self,
        pipeline: Mapping[str, Any],
        key: str,
        counters: dict[str, int],
        last: dict[str, int],
        at: datetime,
        interval: float,
    ) -> PipelineSample:
        latency = pipeline.get("write_latency") or {}
        # A counter that went back belongs to a pipeline that was made anew.
        deltas = {
            name: value - last.get(name, 0) if value >= last.get(name, 0) else value
            for name, value in counters.items()
        }
        return PipelineSample(
            process_id=self._process_id,
            key=key[:200],
            name=str(pipeline.get("name", key))[:200],
            at=at,
            interval_s=interval,
            held_records=int(pipeline.get("held_records", 0)),
            capacity_records=int(pipeline.get("capacity_records", 0)),
            held_bytes=int(pipeline.get("held_bytes", 0)),
            workers=int(pipeline.get("workers", 0)),
            batch_limit=int(pipeline.get("batch_limit", 0)),
            write_limit=int(pipeline.get("write_limit", 0)),
            write_p50_s=latency.get("p50"),
            write_p95_s=latency.get("p95"),
            write_p99_s=latency.get("p99"),
            **deltas,
        )


def _counters(pipeline: Mapping[str, Any]) -> dict[str, int]:
    """The counters by the sample's names; those that are kept by reason are summed."""
    values = {**pipeline, "batches": pipeline.get("flushes", {})}
    dropped = pipeline.get("dropped")
    if isinstance(dropped, Mapping):
        # A part of what was dropped, told by itself: it is what the operator had asked for.
        values["shed"] = dropped.get("shed", 0)
    return {name: _total(values.get(name, 0)) for name in _COUNTERS}


def _total(value: object) -> int:
    if isinstance(value, Mapping):
        return sum(int(part) for part in value.values())
    return int(value) if isinstance(value, int | float) else 0
