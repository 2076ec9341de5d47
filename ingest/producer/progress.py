"""Owns: what is said while the producer runs: the engine's own log lines, and who flushed what.

Lines come from workers, the autoscaler and the main thread.  `_lock` keeps them whole and in order,
and guards whether flushes are told already.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from pipeline.delivery import verdict
from pipeline.errors import RetryableError
from pipeline.observer import Observer
from pipeline.record import Batch

_ATTEMPTS = verdict.__name__


class Progress:
    """Passes lines on to `say`, one at a time."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._hushed = False

    def say(self, line: str) -> None:
        with self._lock:
            if not self._hushed:
                self._say(line)

    def hush(self) -> None:
        """Say nothing more."""
        with self._lock:
            self._hushed = True


class Flushes(Observer):
    """Tells of each batch that a worker wrote once the buffer is closed.

    What is written before `begin` has been called, and said so, is told after it.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._waiting: list[str] | None = None
        self._begun = False

    def hold(self) -> None:
        """From here on a flush counts, and waits to be told."""
        with self._lock:
            self._waiting = []

    def begin(self, line: str) -> None:
        """Say `line`, then the flushes."""
        with self._lock:
            self._progress.say(line)
            for waiting in self._waiting or ():
                self._progress.say(waiting)
            self._begun = True

    def write_finished(self, batch: Batch, seconds: float, error: BaseException | None) -> None:
        if error is not None or self._waiting is None:
            return
        number = threading.current_thread().name.rpartition("-")[2]
        line = f"Worker {number} flushed batch of {batch.count} logs"
        with self._lock:
            if self._begun:
                self._progress.say(line)
            elif self._waiting is not None:
                self._waiting.append(line)


class EngineLines(logging.Handler):
    """While entered, what the engine logs is said here as plain lines, and nowhere else.

    But not each attempt that is made again: what troubles a sink is told once, by the session.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__(level=logging.INFO)
        self._progress = progress
        self._logger = logging.getLogger("pipeline")
        self._before = (self._logger.level, self._logger.propagate)

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == _ATTEMPTS and RetryableError.__name__ in (record.args or ()):
            return
        try:
            self._progress.say(record.getMessage())
        except Exception:
            self.handleError(record)

    def __enter__(self) -> EngineLines:
        self._before = (self._logger.level, self._logger.propagate)
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        level, self._logger.propagate = self._before
        self._logger.setLevel(level)
