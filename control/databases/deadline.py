"""A deadline for what a thread asks a database: a server may fall silent and never hang up.

The kernel's own timeouts see a machine that vanished; they see nothing where something between
here and the server goes on taking bytes, as a proxy, an address that moved, or a NAT that forgot.
Whoever must not wait for ever says so around what it asks.  SQLite needs none of this: it waits
for no longer than its busy timeout.

Each block has a timer thread of its own; `_lock` sees to it that a connection is cut only while
the block lasts, and so belongs to its thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections

from control.databases.reach import cut

logger = logging.getLogger(__name__)


@contextmanager
def answered_within(seconds: float, *, alias: str = "default") -> Iterator[None]:
    """Inside, no connection of this thread's is waited for longer than that.

    One that is too late is cut at its socket: the call of the driver fails as when the server
    hangs up.  What connects anew inside has the same time once more; how long connecting itself
    takes is bounded by the connection's own setting.
    """
    wrapper = connections[alias]
    if wrapper.vendor == "sqlite":
        yield
        return
    watch = _Watch(wrapper, alias, seconds)
    watch.start()
    try:
        yield
    finally:
        watch.end()


class _Watch:
    def __init__(self, wrapper: Any, alias: str, seconds: float) -> None:
        self._wrapper = wrapper
        self._alias = alias
        self._seconds = seconds
        self._lock = threading.Lock()
        self._ended = False

    def start(self) -> None:
        self._timer = threading.Timer(self._seconds, self._cut)
        self._timer.name, self._timer.daemon = "database-deadline", True
        self._timer.start()

    def end(self) -> None:
        with self._lock:
            self._ended = True
            self._timer.cancel()

    def _cut(self) -> None:
        with self._lock:
            if self._ended:
                return
            raw = self._wrapper.connection
            if raw is not None and cut(raw):
                logger.warning(
                    "a database did not answer in time; the connection is given up",
                    extra={"database": self._alias, "seconds": round(self._seconds, 1)},
                )
            self.start()
