"""Batches that wait for their next attempt, ordered by when it is due; none holds a worker.

Guarded by the lock of the pipeline that owns it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator

from pipeline.record import Batch


class WaitingBatches:
    """A heap of batches by due time (monotonic seconds)."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, Batch]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Batch]:
        return (entry[-1] for entry in self._heap)

    def push(self, batch: Batch, due: float) -> None:
        heapq.heappush(self._heap, (due, batch.number, next(self._order), batch))

    def pop_due(self, now: float, *, may_go: Callable[[Batch], bool] | None = None) -> Batch | None:
        """The batch that has been due longest, if one is due, of those that may go."""
        if not self._heap or self._heap[0][0] > now:
            return None
        if may_go is None:
            return heapq.heappop(self._heap)[-1]
        due = min(
            (entry for entry in self._heap if entry[0] <= now and may_go(entry[-1])), default=None
        )
        if due is None:
            return None
        self._heap.remove(due)
        heapq.heapify(self._heap)
        return due[-1]

    def take_all(self) -> list[tuple[Batch, float]]:
        """All batches, each with when it is due; none waits here any more."""
        taken = [(entry[-1], entry[0]) for entry in sorted(self._heap)]
        self._heap = []
        return taken

    def due_s(self, now: float, *, may_go: Callable[[Batch], bool] | None = None) -> float | None:
        """Seconds until the next batch is due, of those that may go; None while none waits."""
        if may_go is None:
            return max(0.0, self._heap[0][0] - now) if self._heap else None
        due = min((entry[0] for entry in self._heap if may_go(entry[-1])), default=None)
        return None if due is None else max(0.0, due - now)

    def collapse(self, now: float) -> None:
        """Make every batch due now: a stop does not wait for back-offs."""
        self._heap = [(now, *entry[1:]) for entry in self._heap]
        heapq.heapify(self._heap)
