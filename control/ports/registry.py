"""A small named registry, the shape that every port shares.

Filled at `AppConfig.ready()` and read from any thread. Registering a name again replaces the
entry, so that an autoreloaded app or a test may register twice. `_lock` guards `_entries`;
readers get a snapshot.
"""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    def __init__(self, *, what: str) -> None:
        self.what = what
        self._lock = threading.Lock()
        self._entries: dict[str, T] = {}

    def register(self, name: str, entry: T) -> None:
        if not name:
            raise ValueError(f"a {self.what} needs a name to be registered")
        with self._lock:
            self._entries[name] = entry

    def unregister(self, name: str) -> None:
        with self._lock:
            self._entries.pop(name, None)

    def get(self, name: str) -> T | None:
        with self._lock:
            return self._entries.get(name)

    def items(self) -> list[tuple[str, T]]:
        with self._lock:
            return list(self._entries.items())

    def values(self) -> list[T]:
        with self._lock:
            return list(self._entries.values())
