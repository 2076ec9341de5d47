"""What an answer promises, and the wait for it.

`memory`: this process has the records.  `wal`: they are in its log on the disk, and survive a
crash and a power cut; `wal-unsynced` where the log is not synced for every request, so that they
survive the process but not the machine.  `stored`: every required sink has stored them.

A stronger promise than the one asked for is always kept to; a weaker one is only ever named as
what it is.  Who demands `wal` of a process that keeps no log on the disk is refused before
anything is taken: afterwards there would be no honest answer.

Waiting holds a server thread, so `Waiters` lets a quarter of them wait; a request beyond that is
answered as if its time were over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from urllib.parse import parse_qsl

from ingest.wire.errors import RequestError
from pipeline.engine import Engine
from pipeline.errors import LogUnavailable
from pipeline.receipt import Receipt

MEMORY, WAL, UNSYNCED, STORED = "memory", "wal", "wal-unsynced", "stored"
# What may be asked for.
ASKED = (MEMORY, WAL, STORED)
_STRENGTH = {"": 0, MEMORY: 0, UNSYNCED: 1, WAL: 2, STORED: 3}


def choose_ack(query: str, *, minimum: str, default: str, logs_to: str) -> str:
    """The acknowledgement to wait for: what `?ack=` asks, at least the key's minimum.

    `logs_to` is what a durable offer to this process's engine comes to.
    """
    asked = default
    if query and "ack" in query:
        named = dict(parse_qsl(query)).get("ack")
        if named is not None:
            available = [ack for ack in ASKED if ack != WAL or logs_to != MEMORY]
            if named not in available:
                raise RequestError(
                    400,
                    "ack_unavailable",
                    f"ack={named[:20]!r} is not available here: ask for one of "
                    f"{', '.join(available)}",
                    available=available,
                )
            asked = named
    if _STRENGTH.get(minimum, 0) > _STRENGTH[asked]:
        asked = minimum
    if minimum == WAL and asked == WAL and logs_to == MEMORY:
        raise LogUnavailable(
            "the API key demands ack=wal, and this process keeps no log on the disk: ask for "
            "ack=stored, or have the operator give the server a log directory",
            retry_after_s=10.0,
        )
    return asked


def logs_to(engine: Engine) -> str:
    """What a durable offer to this engine comes to: memory, wal or wal-unsynced."""
    files = engine.journal.files
    if files is None:
        return MEMORY
    return WAL if files.settings.fsync == "group" else UNSYNCED


def weakest(receipts: Sequence[Receipt]) -> str:
    """What is true of all of them; of none, that whoever adopted the log has the records."""
    logged: str = receipts[0].logged if receipts else WAL
    for receipt in receipts:
        if _STRENGTH[receipt.logged] < _STRENGTH[logged]:
            logged = receipt.logged
    return logged


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
