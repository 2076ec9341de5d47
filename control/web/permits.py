"""Permits that keep some of the server's threads away from ingest, so that probes always answer.

An ingest view takes a permit before it reads a body and gives it back when it has answered; with
none left it refuses at once with 429 and reads nothing of the body: the server throws an unread
body away without a thread. The server's start sets how many there are (threads less the reserved
ones). `_lock` guards both numbers; any request thread may call.

    try:
        with permits.take():
            body = read(...)
    except NoPermit:
        return 429
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class NoPermit(Exception):
    """Every thread that ingest may use is busy."""


class Permits:
    def __init__(self, *, limit: int) -> None:
        self._lock = threading.Lock()
        self._limit = limit
        self._taken = 0

    @property
    def limit(self) -> int:
        with self._lock:
            return self._limit

    @property
    def taken(self) -> int:
        with self._lock:
            return self._taken

    def resize(self, limit: int) -> None:
        """Change how many there are; those already taken stay valid."""
        with self._lock:
            self._limit = max(1, limit)

    def try_take(self) -> bool:
        with self._lock:
            if self._taken >= self._limit:
                return False
            self._taken += 1
            return True

    def give_back(self) -> None:
        with self._lock:
            if self._taken == 0:
                raise RuntimeError("a permit was given back that nobody took")
            self._taken -= 1

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a permit for the block; raises NoPermit when there is none."""
        if not self.try_take():
            raise NoPermit
        try:
            yield
        finally:
            self.give_back()


permits = Permits(limit=28)
