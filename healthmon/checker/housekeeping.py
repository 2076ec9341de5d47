"""What one checker does for all of them: tasks that rooms register, run by the holder of slot 0.

The tasks run one after another on the thread "housekeeping", each when it is due; `_lock` guards
the thread's coming and going.  A task that fails is logged once for as long as it fails in the
same way, and tried again when it is next due.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from django.db import connections

from control.ports.registry import Registry
from control.processes.heart import drop_stale_connections
from pipeline.runtime.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

LONGEST_WAIT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    name: str
    interval_s: float
    run: Callable[[], object]


_tasks: Registry[Task] = Registry(what="housekeeping task")


def register_task(name: str, interval_s: float, run: Callable[[], object]) -> None:
    """Run `run` every `interval_s` in the checker that keeps house; same name replaces it."""
    _tasks.register(name, Task(name=name, interval_s=interval_s, run=run))


def unregister_task(name: str) -> None:
    _tasks.unregister(name)


class Housekeeping:
    """`is_ours` tells whether this checker is the one, at each beat."""

    def __init__(self, *, is_ours: Callable[[], bool], clock: Clock | None = None) -> None:
        self._is_ours = is_ours
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._due: dict[str, float] = {}
        self._failing: dict[str, str] = {}

    def start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)
            self._thread.start()

    def stop(self, deadline_s: float) -> bool:
        """End the thread after the task under way; True when it ended before the deadline."""
        with self._lock:
            thread, self._thread = self._thread, None
        self._stopping.set()
        if thread is None:
            return True
        thread.join(deadline_s)
        return not thread.is_alive()

    def beat(self) -> float:
        """Run what is due, if it is ours to do; returns the seconds until something will be."""
        if not self._is_ours():
            return 1.0
        wait = LONGEST_WAIT_S
        for task in _tasks.values():
            if self._stopping.is_set():
                break
            if self._clock.monotonic() >= self._due.get(task.name, 0.0):
                self._run_one(task)
                self._due[task.name] = self._clock.monotonic() + task.interval_s
            wait = min(wait, self._due[task.name] - self._clock.monotonic())
        return max(wait, 0.0)

    def _run_one(self, task: Task) -> None:
        try:
            drop_stale_connections()
            task.run()
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            if self._failing.get(task.name) != words:
                self._failing[task.name] = words
                logger.exception("housekeeping failed", extra={"task": task.name})
        else:
            if self._failing.pop(task.name, None) is not None:
                logger.info("housekeeping works again", extra={"task": task.name})

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self.beat()):
                pass
        finally:
            connections.close_all()
