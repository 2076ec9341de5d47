"""Calls that are made after a while, unless they are called off: one thread for all of them.

A thread for each would cost more than most of what is watched, and nearly all are called off.
`_lock` guards everything; calls are made by the thread `database-alarms`, without the lock.  The
thread starts with the first alarm and ends when it has had nothing to do for a while; a forked
child has one of its own.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

IDLE_S = 30.0
# Those called off stay in the heap until they are due, but no more than this besides the others.
_SLACK = 1_000


class Alarm:
    """One call to be made at `due`; None once it was made or called off."""

    __slots__ = ("call", "due")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self.call: Callable[[], None] | None = call


class Alarms:
    def __init__(self, *, idle_s: float = IDLE_S) -> None:
        self._idle_s = idle_s
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._sooner = threading.Condition(self._lock)
        self._heap: list[tuple[float, int, Alarm]] = []
        self._numbers = itertools.count()
        self._off = 0
        self._running = False
        self._wakes_at = 0.0

    def set(self, seconds: float, call: Callable[[], None]) -> Alarm:
        """Have `call` called, in that many seconds, by the thread."""
        if self._pid != os.getpid():
            self._forget()  # a forked child: its parent's thread is not here
        alarm = Alarm(time.monotonic() + seconds, call)
        with self._lock:
            heapq.heappush(self._heap, (alarm.due, next(self._numbers), alarm))
            if not self._running:
                self._running = True
                self._wakes_at = alarm.due
                threading.Thread(target=self._run, name="database-alarms", daemon=True).start()
            elif alarm.due < self._wakes_at:
                self._sooner.notify()
        return alarm

    def call_off(self, alarm: Alarm) -> None:
        """Do not call; nothing when it was called."""
        with self._lock:
            if alarm.call is None:
                return
            alarm.call = None
            self._off += 1
            if self._off > _SLACK and self._off > len(self._heap) // 2:
                self._heap = [one for one in self._heap if one[2].call is not None]
                heapq.heapify(self._heap)
                self._off = 0

    def _run(self) -> None:
        while True:
            call = self._next()
            if call is None:
                return
            try:
                call()
            except Exception:
                logger.exception("an alarm of a database failed")

    def _next(self) -> Callable[[], None] | None:
        """Wait for what is due next; None when the thread may end."""
        idle_until = time.monotonic() + self._idle_s
        with self._lock:
            while True:
                now = time.monotonic()
                while self._heap and (self._heap[0][2].call is None or self._heap[0][0] <= now):
                    alarm = heapq.heappop(self._heap)[2]
                    call, alarm.call = alarm.call, None
                    if call is not None:
                        return call
                    self._off -= 1
                    idle_until = now + self._idle_s
                if not self._heap and now >= idle_until:
                    self._running = False
                    return None
                self._wakes_at = self._heap[0][0] if self._heap else idle_until
                self._sooner.wait(self._wakes_at - now)


alarms = Alarms()
