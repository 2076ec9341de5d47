"""A pipeline in miniature on simulated time: what waits, workers, back-offs, one back end.

Events come one after the other on one thread; nothing waits in real time.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass
from statistics import median

from pipeline.batching.adaptive import AdaptiveSettings, BatchSize
from pipeline.delivery.concurrency import ConcurrencyLimit
from tests.pipeline.backends.models import Answer, Backend

BACK_OFF_S = 0.05


@dataclass(frozen=True)
class Flush:
    """One attempt that has ended, and what the limits are after it."""

    now: float
    count: int
    seconds: float
    stored: bool
    under_way: int
    size: int
    writes: int


@dataclass
class _Write:
    count: int
    formed_s: float
    fresh: bool
    full: bool
    under_way: int
    answer: Answer


class World:
    """`records_per_s` is what is offered; None: there is always more than can be written."""

    def __init__(
        self,
        backend: Backend,
        *,
        settings: AdaptiveSettings | None = None,
        adaptive_writes: bool = False,
        workers: int = 1,
        records_per_s: float | None = None,
        max_wait_s: float = 0.2,
        records: int = 500,
    ) -> None:
        self.now = 1000.0
        self.backend = backend
        self.size = BatchSize(settings) if settings is not None else None
        self.writes = ConcurrencyLimit(most=workers) if adaptive_writes else None
        self.history: list[Flush] = []
        self.stored = 0
        self.most_under_way = 0
        self._workers = workers
        self._records_per_s = records_per_s
        self._max_wait_s = max_wait_s
        self._records = records
        self._waiting = 0.0
        self._under_way = 0
        self._events: list[tuple[float, int, _Write]] = []
        self._backing_off: list[tuple[float, int, int, float]] = []
        self._numbers = itertools.count()

    def run(self, flushes: int) -> list[Flush]:
        """So many attempts more; returns them."""
        first = len(self.history)
        while len(self.history) < first + flushes:
            while self._begin():
                pass
            self._advance()
        return self.history[first:]

    @property
    def _size_limit(self) -> int:
        return self._records if self.size is None else self.size.limit

    @property
    def _write_limit(self) -> int:
        return self._workers if self.writes is None else self.writes.limit

    def _begin(self) -> bool:
        """Begin a write if one may be begun now."""
        if self._under_way >= min(self._workers, self._write_limit):
            return False
        if self._backing_off and self._backing_off[0][0] <= self.now:
            _, _, count, formed_s = heapq.heappop(self._backing_off)
            self._send(count, formed_s, fresh=False)
        elif self._due_s() <= self.now:
            count = self._size_limit
            if self._records_per_s is not None:
                count = min(count, max(1, int(self._waiting)))
                self._waiting = max(0.0, self._waiting - count)
            self._send(count, self.now, fresh=True)
        else:
            return False
        return True

    def _due_s(self) -> float:
        """When a batch closes: now if it is full, else when its oldest record has waited."""
        rate = self._records_per_s
        if rate is None:
            return self.now
        full = self.now + max(0.0, self._size_limit - self._waiting) / rate
        aged = self.now - self._waiting / rate + self._max_wait_s
        return max(self.now, min(full, aged))

    def _send(self, count: int, formed_s: float, *, fresh: bool) -> None:
        self._under_way += 1
        self.most_under_way = max(self.most_under_way, self._under_way)
        if self.writes is not None:
            self.writes.began(self._under_way)
        answer = self.backend.answer(count, self._under_way, self.now)
        full = count == self._size_limit
        write = _Write(count, formed_s, fresh, full, self._under_way, answer)
        heapq.heappush(self._events, (self.now + answer.seconds, next(self._numbers), write))

    def _advance(self) -> None:
        """Move to the next thing that happens, and let it."""
        ended = self._events[0][0] if self._events else math.inf
        may_begin = self._under_way < min(self._workers, self._write_limit)
        others = math.inf
        if may_begin:
            others = self._due_s()
            if self._backing_off:
                others = min(others, self._backing_off[0][0])
        # Beyond what rounding could keep from ever becoming due.
        then = min(ended, max(others, self.now + 1e-6))
        if self._records_per_s is not None:
            self._waiting += self._records_per_s * (then - self.now)
        self.now = then
        if ended <= then:
            self._end(heapq.heappop(self._events)[2])

    def _end(self, write: _Write) -> None:
        self._under_way -= 1
        seconds, formed_s = write.answer.seconds, write.formed_s
        if write.answer.stored:
            self.stored += write.count
            if self.writes is not None:
                self.writes.answered(seconds=seconds, count=write.count, now=self.now)
            if self.size is not None and write.fresh:
                self.size.flushed(count=write.count, full=write.full, seconds=seconds, now=self.now)
        else:
            eased = self.writes is not None and self.writes.pushed_back(
                seconds=seconds, now=self.now
            )
            if self.size is not None and not eased:
                self.size.failed(formed_s=formed_s, now=self.now)
            due = self.now + BACK_OFF_S
            heapq.heappush(self._backing_off, (due, next(self._numbers), write.count, formed_s))
        self.history.append(
            Flush(
                now=self.now,
                count=write.count,
                seconds=seconds,
                stored=write.answer.stored,
                under_way=write.under_way,
                size=self._size_limit,
                writes=self._write_limit,
            )
        )


def sizes(flushes: list[Flush]) -> list[int]:
    return [one.size for one in flushes]


def writes(flushes: list[Flush]) -> list[int]:
    return [one.writes for one in flushes]


def spread(of: list[int]) -> float:
    """How far the farthest is from the median, as a share of that."""
    middle = median(of)
    return max(abs(one - middle) for one in of) / middle
