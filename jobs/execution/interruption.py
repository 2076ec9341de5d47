"""The word that ends a job's run from outside, and reaches whatever it waits for.

One for each run.  The first word stands.  `_lock` guards it and the listeners; listeners are called
without it, on the thread that interrupts, or at once where the word was said before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.runtime.clock import Clock

CANCEL, STOP, LOST, DEADLINE = "cancel", "stop", "lost", "deadline"
DECIDED = "decided"  # to a step: what its job is to be does not depend on it any more


class Interrupted(Exception):
    """The run was told to end; `why` is cancel, stop, lost (its claim), deadline or decided."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Interruption:
    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._said = threading.Condition(self._lock)
        self._why = ""
        self._listeners: dict[object, Callable[[], None]] = {}

    @property
    def why(self) -> str:
        """The word; "" while the run may go on."""
        return self._why

    def interrupt(self, why: str) -> None:
        """Say it; a second word changes nothing."""
        with self._lock:
            if self._why:
                return
            self._why = why
            self._said.notify_all()
            listeners = list(self._listeners.values())
        for tell in listeners:
            tell()

    def check(self) -> None:
        """Raises Interrupted if it was said."""
        if self._why:
            raise Interrupted(self._why)

    def wait(self, timeout_s: float) -> None:
        """Wait that long.  Raises Interrupted as soon as it is said."""
        until = self._clock.monotonic() + timeout_s
        with self._said:
            while not self._why:
                left = until - self._clock.monotonic()
                if left <= 0:
                    return
                self._clock.wait(self._said, left)
        raise Interrupted(self._why)

    @contextmanager
    def telling(self, tell: Callable[[], None]) -> Iterator[None]:
        """Have `tell` called, once, if it is said while the block lasts or was said before."""
        key = object()
        with self._lock:
            said = bool(self._why)
            if not said:
                self._listeners[key] = tell
        if said:
            tell()
        try:
            yield
        finally:
            with self._lock:
                self._listeners.pop(key, None)
