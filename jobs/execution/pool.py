"""Threads that help a worker with the steps of a stage, shared by all workers of the process.

A worker never depends on them: what no helper has begun it does itself.  A helper begins when one
is asked for and none is idle, up to `max_threads`, and ends after `idle_s` without work.  `_lock`
guards everything here; work is done without it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from django.db import connections

from pipeline.runtime.clock import Clock

logger = logging.getLogger(__name__)


class StepPool:
    def __init__(self, *, max_threads: int, clock: Clock, idle_s: float = 30.0) -> None:
        self._max_threads = max_threads
        self._clock = clock
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._waiting: deque[Callable[[], None]] = deque()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._made = 0
        self._closed = False

    def offer(self, work: Callable[[], None]) -> None:
        """Have a helper do this as soon as one is free; it may be late, and must bear that."""
        with self._lock:
            if self._closed:
                return
            self._waiting.append(work)
            if self._idle >= len(self._waiting) or len(self._threads) >= self._max_threads:
                self._work.notify()
                return
            self._made += 1
            thread = threading.Thread(
                target=self._help, name=f"collector-step-{self._made}", daemon=True
            )
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # no more threads: the worker does it itself
            logger.warning("no thread can be started to run steps at the same time")
            with self._lock:
                self._threads.discard(thread)

    def withdraw(self, work: Callable[[], None]) -> None:
        """Forget it where it was not begun."""
        with self._lock:
            self._waiting = deque(one for one in self._waiting if one is not work)

    @property
    def threads(self) -> int:
        return len(self._threads)

    def close(self, timeout_s: float = 1.0) -> bool:
        """Begin nothing more; True when all helpers ended in time."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            self._work.notify_all()
            due = self._clock.monotonic() + timeout_s
            while self._threads:
                left = due - self._clock.monotonic()
                if left <= 0:
                    return False
                self._clock.wait(self._work, left)
        return True

    def _help(self) -> None:
        try:
            while (work := self._next()) is not None:
                try:
                    work()
                except Exception:
                    logger.exception("a helper failed")
                del work
        finally:
            connections.close_all()
            with self._lock:
                self._threads.discard(threading.current_thread())
                self._work.notify_all()

    def _next(self) -> Callable[[], None] | None:
        due = self._clock.monotonic() + self._idle_s
        with self._lock:
            self._idle += 1
            try:
                while not self._waiting:
                    left = due - self._clock.monotonic()
                    if self._closed or left <= 0:
                        return None
                    self._clock.wait(self._work, left)
                return self._waiting.popleft()
            finally:
                self._idle -= 1
