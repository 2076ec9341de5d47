"""A thread for what is done now and then: tasks, one after another, each when it is due.

A task that fails is logged once for as long as it fails in the same way, and tried again when it
is next due.  A database that falls silent is waited for a bounded time.  `_lock` guards the
thread's coming and going.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.db import Error as DatabaseProblem
from django.db import connections

from control.databases.causes import cause_of
from control.databases.deadline import answered_within
from control.processes.heart import drop_stale_connections
from pipeline.runtime.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

ANSWER_S = 30.0
LONGEST_WAIT_S = 5.0
# Processes that began at the same moment part ways.
JITTER = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """`run` returns in how many seconds to come again; None: after `interval_s`."""

    name: str
    interval_s: float
    run: Callable[[], float | None]


class Rounds:
    def __init__(
        self,
        *,
        tasks: Sequence[Task],
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
        retire: Callable[[], None] = connections.close_all,
    ) -> None:
        self._tasks = tuple(tasks)
        self._clock = clock or SystemClock()
        self._jitter = jitter
        self._retire = retire
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._due: dict[str, float] = {}
        self._failing: dict[str, str] = {}

    @property
    def failing(self) -> dict[str, str]:
        """The tasks that failed when they were last run, and why."""
        return dict(self._failing)

    def start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="jobs-upkeep", daemon=True)
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
        """Run what is due; returns the seconds until something will be."""
        wait = LONGEST_WAIT_S
        for task in self._tasks:
            if self._stopping.is_set():
                break
            if self._clock.monotonic() >= self._due.get(task.name, 0.0):
                pause_s = self._run_one(task)
                self._due[task.name] = self._clock.monotonic() + pause_s
            wait = min(wait, self._due[task.name] - self._clock.monotonic())
        return max(wait, 0.0)

    def _run_one(self, task: Task) -> float:
        pause_s = task.interval_s * (1 + JITTER * (self._jitter() - 0.5))
        try:
            drop_stale_connections()
            with answered_within(ANSWER_S):
                asked_s = task.run()
        except Exception as error:
            self._say(task, error)
            return pause_s
        if self._failing.pop(task.name, None) is not None:
            logger.info("upkeep works again", extra={"task": task.name})
        return pause_s if asked_s is None else asked_s

    def _say(self, task: Task, error: Exception) -> None:
        is_database = isinstance(error, DatabaseProblem)
        words = cause_of(error) if is_database else f"{type(error).__name__}: {error}"
        if self._failing.get(task.name) == words:
            return
        self._failing[task.name] = words
        if is_database:
            logger.warning("upkeep waits", extra={"task": task.name, "cause": words})
        else:
            logger.error(
                "upkeep failed; it is tried again",
                extra={"task": task.name, "cause": words},
                exc_info=error,
            )

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self.beat()):
                pass
        finally:
            self._retire()
