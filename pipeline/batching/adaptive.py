"""Sizes that find themselves: what may be found, and how large a batch is.

The count at which a batch closes follows two figures of the recent flushes: how full they were, and
how long they took.  It grows by a quarter while they are full and quick, and shrinks by an eighth
while they are half empty, take longer than they may, or fail.  Between two changes there are some
flushes, so that each step is judged by what came of it.

`BatchSize` is pure, told the time, and guarded by the pipeline's lock.  How many batches a sink
gets at once is found in `pipeline.delivery.concurrency`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from statistics import fmean

GROWTH, SHRINKAGE = 1.25, 0.875
# Fuller than this is full, emptier than that is half empty (shares of the limit).
FULL, HALF_EMPTY = 0.9, 0.5
# A flush is quick within this share of its deadline.
QUICK = 0.5
# How many flushes an error is remembered for, and the means are taken over at most.
RECENT = 10
# How many flushes there are between two changes.
SETTLE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveSettings:
    """What a pipeline finds out by itself; off unless set.

    With `batch` the count at which a batch closes starts at `start_records` and moves between
    `min_records` and `max_records`, so that a flush takes less than half of `flush_deadline_s`.
    With `concurrency` the number of batches that are with the sink at once moves between 1 and the
    number of workers.
    """

    batch: bool = False
    concurrency: bool = False
    start_records: int = 100
    min_records: int = 10
    max_records: int = 10_000
    flush_deadline_s: float = 1.0

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise ValueError("; ".join(problems))

    def within(self, most: int) -> AdaptiveSettings:
        """The same for a sink that takes at most so many records at once."""
        return replace(
            self,
            max_records=min(self.max_records, most),
            start_records=min(self.start_records, most),
            min_records=min(self.min_records, most),
        )

    def problems(self) -> list[str]:
        """Every broken rule, each naming its field."""
        rules = (
            (
                1 <= self.min_records <= self.start_records <= self.max_records,
                f"adaptive must satisfy 1 <= min_records ({self.min_records}) <= "
                f"start_records ({self.start_records}) <= max_records ({self.max_records})",
            ),
            (self.flush_deadline_s > 0, "adaptive flush_deadline_s must be positive"),
        )
        return [message for holds, message in rules if not holds]


class BatchSize:
    """The count at which a batch closes; see the module's text."""

    def __init__(self, settings: AdaptiveSettings) -> None:
        self._settings = settings
        self._limit = settings.start_records
        self._changed_s = -math.inf
        # How full the flushes since the last change were, and what they took in seconds.
        self._fills: deque[float] = deque(maxlen=RECENT)
        self._seconds: deque[float] = deque(maxlen=RECENT)
        self._since_change = 0
        self._since_error = RECENT

    @property
    def limit(self) -> int:
        """The count at which a batch closes from now on."""
        return self._limit

    def configure(self, settings: AdaptiveSettings, *, now: float) -> None:
        """Take on changed settings; what was found stays, as far as they let it."""
        self._settings = settings
        self._change(self._limit, now)

    def flushed(self, *, count: int, full: bool, seconds: float, now: float) -> None:
        """A batch of `count` records was written; it was closed because it was full, or old.

        One that was full by an earlier limit is full, and its time is taken in proportion: with
        many workers the next step would else wait for all that is under way.
        """
        self._fills.append(1.0 if full else count / self._limit)
        self._seconds.append(seconds * self._limit / count if full else seconds)
        self._since_change += 1
        self._since_error += 1
        self._decide(now)

    def failed(self, *, formed_s: float, now: float) -> None:
        """A batch could not be written, which was the sink's doing and not its records'."""
        self._since_change += 1
        self._since_error = 0
        if formed_s >= self._changed_s:
            self._shrink(now)  # the first of this size: it does not take more of them to know
        else:
            self._decide(now)

    def _decide(self, now: float) -> None:
        if self._since_change < SETTLE:
            return
        if self._since_error < RECENT:
            self._shrink(now)
        elif len(self._fills) >= SETTLE:
            fill, seconds = fmean(self._fills), fmean(self._seconds)
            deadline = self._settings.flush_deadline_s
            if fill < HALF_EMPTY or seconds > deadline:
                self._shrink(now)
            elif fill > FULL and seconds < QUICK * deadline:
                self._change(max(self._limit + 1, int(self._limit * GROWTH)), now)

    def _shrink(self, now: float) -> None:
        self._change(min(self._limit - 1, int(self._limit * SHRINKAGE)), now)

    def _change(self, limit: int, now: float) -> None:
        limit = min(max(limit, self._settings.min_records), self._settings.max_records)
        if limit != self._limit:
            self._limit, self._changed_s = limit, now
            self._since_change = 0
            self._fills.clear()
            self._seconds.clear()
