"""A request's short wait for room before its 429, where the settings allow one.

Waiting holds a server thread, so `Places` lets a quarter of them wait; a request beyond that is
refused at once.  Runs on the request's thread; `_lock` guards how many places are taken.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pipeline.engine import Engine
from pipeline.errors import Refused

# An offer that was let in may find the room gone again: it comes back so often at most.
TRIES = 3


class Places:
    """At most `limit` threads wait for room at once."""

    def __init__(self, *, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._taken = 0

    def try_take(self) -> bool:
        with self._lock:
            if self._taken >= self.limit:
                return False
            self._taken += 1
            return True

    def give_back(self) -> None:
        with self._lock:
            self._taken -= 1


class Patience:
    """What is left of one request's time to wait (seconds), before its body is read and after."""

    def __init__(
        self,
        *,
        engine: Engine,
        type: str,
        wait_s: float,
        places: Places,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._type, self._places = engine, type, places
        self._monotonic = monotonic
        self._wait_s = wait_s
        self._due = monotonic() + wait_s if wait_s else 0.0
        self._tries = TRIES

    def refusal(self, tenant: str, nbytes: int) -> Refused | None:
        """Why the request would be refused whatever its records are, once it has waited."""
        if not self._wait_s:
            return self._engine.refusal(self._type, tenant)
        return self._await_room(tenant, 1, nbytes)

    @property
    def has_more(self) -> bool:
        """Whether an offer that was refused may wait and be made again."""
        return bool(self._wait_s and self._tries) and self._monotonic() < self._due

    def await_more(self, tenant: str, records: int, nbytes: int) -> Refused | None:
        """Wait until a refused offer of so much may be made again; why it may not."""
        self._tries -= 1
        return self._await_room(tenant, records, nbytes)

    def _await_room(self, tenant: str, records: int, nbytes: int) -> Refused | None:
        has_place = self._places.try_take()
        try:
            return self._engine.await_room(
                self._type,
                tenant,
                records=records,
                nbytes=nbytes,
                timeout_s=max(0.0, self._due - self._monotonic()) if has_place else 0.0,
            )
        finally:
            if has_place:
                self._places.give_back()
