"""The last minutes of every pipeline: a window of time, what is told of it, and the rows read.

A sample tells what happened between `at - interval_s` and `at`; `buckets` makes histories of them.
Runs in request threads; reads, and holds no state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from control.admin.paths import Values

SPAN = timedelta(minutes=15)
STEP_S = 10.0
# A process writes every 5 s; the newest bucket is drawn only when its samples must have come.
SETTLE_S = 7.0
# No pipeline reports more often than this many times in the window: bounds the rows that are read.
MAX_ROWS = 50_000
# So many buckets are what happened moments ago.
RECENT = 3

COUNTS = (
    "accepted",
    "stored",
    "refused",
    "dropped",
    "shed",
    "batches",
    "scaled_up",
    "scaled_down",
)
GAUGES = (
    "held_records",
    "capacity_records",
    "held_bytes",
    "workers",
    "write_limit",
    "batch_limit",
)
LATENCIES = ("write_p50_s", "write_p95_s", "write_p99_s")
_FIELDS = (
    "process_id",
    "key",
    "name",
    "at",
    "interval_s",
    *COUNTS,
    "peak_fill",
    *GAUGES,
    *LATENCIES,
)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Buckets of `step_s` seconds that end at `ends_at`."""

    ends_at: datetime
    step_s: float = STEP_S
    count: int = int(SPAN.total_seconds() / STEP_S)

    @classmethod
    def until(cls, now: datetime, *, span: timedelta = SPAN, step_s: float = STEP_S) -> Window:
        settled = (now.timestamp() - SETTLE_S) // step_s * step_s
        return cls(
            ends_at=datetime.fromtimestamp(settled, tz=UTC),
            step_s=step_s,
            count=int(span.total_seconds() / step_s),
        )

    @property
    def starts_at(self) -> datetime:
        return self.ends_at - timedelta(seconds=self.count * self.step_s)

    def index_of(self, at: float) -> int | None:
        """The bucket that a moment belongs to, which is its last one where two meet."""
        index = math.ceil((at - self.starts_at.timestamp()) / self.step_s) - 1
        return index if 0 <= index < self.count else None

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
    """One pipeline over the window, all processes together. Rates per second; None is a gap.

    Gauges are of the processes that had any of its records then: `workers` and `write_limit` added
    up, of `fill`, `held_bytes` and `batch_limit` the largest. `fill` is that of the sample's
    moment, `peak` the highest since the one before it.
    `steps` are the scaler's: in each bucket how many up and how many down.
    """

    key: str
    name: str
    accepted: Values = ()
    stored: Values = ()
    refused: Values = ()
    dropped: Values = ()
    shed: Values = ()
    fill: Values = ()
    peak: Values = ()
    held_bytes: Values = ()
    workers: Values = ()
    write_limit: Values = ()
    batch_limit: Values = ()
    per_batch: Values = ()
    steps: Sequence[tuple[int, int]] = ()

    @property
    def latest_per_batch(self) -> float | None:
        return next((one for one in reversed(self.per_batch) if one is not None), None)

    @property
    def latest_peak(self) -> float | None:
        """The highest fill of the newest moments that were told of."""
        known = [one for one in self.peak if one is not None]
        return max(known[-RECENT:], default=None)

    @property
    def ups(self) -> int:
        return sum(up for up, _ in self.steps)

    @property
    def downs(self) -> int:
        return sum(down for _, down in self.steps)

    p50: Values = ()
    p95: Values = ()
    p99: Values = ()


def read_rows(window: Window) -> list[dict[str, Any]]:
    """The window's samples in their order, and those of the moments after it."""
    from control.models import PipelineSample

    # Where there are too many, the newest are read.
    newest = PipelineSample.objects.filter(at__gt=window.starts_at).order_by("-at")
    return list(newest.values(*_FIELDS)[:MAX_ROWS])[::-1]
