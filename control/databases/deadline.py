"""A deadline for what a thread asks a database: a server may fall silent and never hang up.

The kernel's own timeouts see a machine that vanished; they see nothing where something between
here and the server goes on taking bytes, as a proxy, an address that moved, or a NAT that forgot.
Whoever must not wait for ever says so around what it asks.  SQLite needs none of this: it waits
for no longer than its busy timeout.

One thread of the process keeps the time for all blocks; `_lock` sees to it that a connection is
cut only while the block lasts, and so belongs to its thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections

from control.databases.alarms import alarms
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
    with Watch(lambda: wrapper.connection, seconds=seconds, name=alias):
        yield


class Watch:
    """Cuts the connection that `current` says is in use, and again what takes its place."""

    def __init__(self, current: Callable[[], Any], *, seconds: float, name: str) -> None:
        self._current = current
        self._name = name
        self._seconds = seconds
        self._lock = threading.Lock()
        self._ended = False
        self.has_cut = False

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> None:
        self._alarm = alarms.set(self._seconds, self._cut)

    def end(self) -> None:
        with self._lock:
            self._ended = True
            alarms.call_off(self._alarm)

    def _cut(self) -> None:
        with self._lock:
            if self._ended:
                return
            connection = self._current()
            if connection is not None and cut(connection):
                self.has_cut = True
                logger.warning(
                    "a database did not answer in time; the connection is given up",
                    extra={"database": self._name, "seconds": round(self._seconds, 1)},
                )
            self.start()
