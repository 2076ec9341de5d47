"""Log lines in measure: which of many like events are told.

Request threads call it; `_lock` guards the counts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LINES_A_SECOND = 5


class Sampler:
    """Which of many like events may be told, and how many were not since the last one told."""

    def __init__(
        self, *, per_second: int = LINES_A_SECOND, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._seconds: dict[object, tuple[int, int]] = {}
        self._left_out: dict[object, int] = {}

    def admit(self, key: object) -> int:
        """How many were left out before this one, or -1 if this one is to be left out."""
        second = int(self._monotonic())
        with self._lock:
            at, told = self._seconds.get(key, (second, 0))
            if at != second:
                told = 0
            if told >= self._per_second:
                self._left_out[key] = self._left_out.get(key, 0) + 1
                return -1
            self._seconds[key] = (second, told + 1)
            return self._left_out.pop(key, 0)
