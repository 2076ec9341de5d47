"""What pages were made of a moment ago, so that a crowd costs one reading of the rows.

Bounded in number; an entry serves FRESH_S.  While one thread makes it anew the others are given
what there was; and when the database is away everyone is, for as long as STALE_S.  `_lock` guards
the entries and who is making them, and is not held while anything is made.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from django.db import Error as DatabaseProblem

logger = logging.getLogger(__name__)

FRESH_S = 10.0
STALE_S = 3600.0
MAX_ENTRIES = 256
WAIT_S = 10.0
T = TypeVar("T")


@dataclass(slots=True)
class _Entry(Generic[T]):
    made_at: float
    value: T


class Cache(Generic[T]):
    def __init__(
        self,
        *,
        fresh_s: float = FRESH_S,
        stale_s: float = STALE_S,
        max_entries: int = MAX_ENTRIES,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fresh_s = fresh_s
        self._stale_s = stale_s
        self._max_entries = max_entries
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, _Entry[T]] = OrderedDict()
        self._making: dict[Hashable, threading.Event] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value, made by `make` where there is no fresh one.  Raises what `make` does."""
        with self._lock:
            entry = self._entries.get(key)
            now = self._monotonic()
            if entry is not None and now - entry.made_at < self._fresh_s:
                self._entries.move_to_end(key)
                return entry.value
            usable = entry is not None and now - entry.made_at < self._stale_s
            under_way = self._making.get(key)
            if under_way is None:
                done = self._making[key] = threading.Event()
        if under_way is None:
            return self._make(key, make, done, entry if usable else None)
        if usable and entry is not None:
            return entry.value
        under_way.wait(WAIT_S)
        with self._lock:
            entry = self._entries.get(key)
        # The one who made it failed, or takes too long: this thread asks for itself.
        return entry.value if entry is not None else make()

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def _make(
        self, key: Hashable, make: Callable[[], T], done: threading.Event, old: _Entry[T] | None
    ) -> T:
        try:
            value = make()
        except DatabaseProblem as error:
            if old is None:
                raise
            logger.debug("a page is shown as it was", extra={"error": type(error).__name__})
            return old.value
        else:
            with self._lock:
                self._entries[key] = _Entry(self._monotonic(), value)
                self._entries.move_to_end(key)
                while len(self._entries) > self._max_entries:
                    self._entries.popitem(last=False)
            return value
        finally:
            with self._lock:
                self._making.pop(key, None)
            done.set()
