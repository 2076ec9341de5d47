"""Who is due when: a heap of times, with whatever was rescheduled left in it until it surfaces.

Used on the checker's event loop alone.  Times are monotonic seconds; a target has one place in
the schedule, and giving it another forgets the first.
"""

from __future__ import annotations

import heapq


class Schedule:
    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._due: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def put(self, target_id: int, due_s: float) -> None:
        """The target is due at `due_s`, and at no other time."""
        self._due[target_id] = due_s
        heapq.heappush(self._heap, (due_s, target_id))
        if len(self._heap) > 64 and len(self._heap) > 4 * len(self._due):
            self._heap = [(due, one) for one, due in self._due.items()]
            heapq.heapify(self._heap)

    def remove(self, target_id: int) -> None:
        self._due.pop(target_id, None)

    def due_at(self, target_id: int) -> float | None:
        return self._due.get(target_id)

    def next_s(self) -> float | None:
        """When the next target is due; None when none is."""
        heap = self._heap
        while heap and self._due.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def take(self, now_s: float, most: int) -> list[tuple[int, float]]:
        """Up to `most` targets that are due, with when they were; they leave the schedule."""
        taken: list[tuple[int, float]] = []
        heap, due = self._heap, self._due
        while heap and heap[0][0] <= now_s and len(taken) < most:
            when, target_id = heapq.heappop(heap)
            if due.get(target_id) == when:
                del due[target_id]
                taken.append((target_id, when))
        return taken
