"""What an answer promises, and the wait for it.

`memory`: the records are in this process's log.  `stored`: every required sink has stored them.
A stronger promise than the one asked for is always kept to; a weaker one is only ever named as
what it is.  Waiting holds a server thread, so `Waiters` lets a quarter of them wait; a request
beyond that is answered as if its time were over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from urllib.parse import parse_qsl

from ingest.wire.errors import RequestError
from pipeline.receipt import Receipt

MEMORY, WAL, STORED = "memory", "wal", "stored"
AVAILABLE = (MEMORY, STORED)
_STRENGTH = {"": 0, MEMORY: 0, WAL: 1, STORED: 2}


def choose_ack(query: str, *, minimum: str, default: str) -> str:
    """The acknowledgement to wait for: what `?ack=` asks, at least the key's minimum."""
    asked = default
    if query and "ack" in query:
        asked = dict(parse_qsl(query)).get("ack", default)
        if asked not in AVAILABLE:
            raise RequestError(
                400,
                "ack_unavailable",
                f"ack={asked[:20]!r} is not available here: ask for one of {', '.join(AVAILABLE)}",
                available=list(AVAILABLE),
            )
    if _STRENGTH.get(minimum, 0) > _STRENGTH[asked]:
        # The next stronger one there is keeps a minimum that itself is not there.
        return STORED
    return asked


class Waiters:
    """At most `limit` waiting threads.  `_lock` guards the count."""

    def __init__(self, *, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._waiting = 0

    @property
    def waiting(self) -> int:
        with self._lock:
            return self._waiting

    def wait(
        self,
        receipts: Sequence[Receipt],
        timeout_s: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> bool:
        """Whether all receipts are done within the time; False at once if too many wait already."""
        for receipt in receipts:
            receipt.request_flush()
        if all(receipt.done for receipt in receipts):
            return True
        with self._lock:
            if self._waiting >= self.limit:
                return False
            self._waiting += 1
        try:
            due = monotonic() + timeout_s
            return all(receipt.wait(max(0.0, due - monotonic())) for receipt in receipts)
        finally:
            with self._lock:
                self._waiting -= 1
