"""The receipt of an offer: accepted now, and settled once every required sink has it.

Made by the request's thread, settled by workers.  One lock for all receipts guards their counts
and callbacks, as none is held for long; callbacks run outside it, on the worker's thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

_lock = threading.Lock()


class Receipt:
    """What an offer gives back; safe from any thread.

    `id_base` and `count` tell the records' ids: see `pipeline.ids.id_run`.  Wait with `wait` in a
    thread, or be called back by `add_done_callback` without one.  `logged` tells what a crash
    leaves of the records: nothing ("memory"), all ("wal"), or all unless the machine fails too
    ("wal-unsynced").

    Once done, `unstored` is how many of the records no required sink stored: those that none takes,
    those that one refused (the largest count of any), and those that a stop left behind.

    `shed` tells how many records of the offer were not accepted, as every sink that would have
    taken them sheds their level at the moment; `count` is without them.
    """

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_event",
        "_owed",
        "_request_flush",
        "_unrouted",
        "count",
        "id_base",
        "logged",
        "shed",
        "unstored",
    )

    def __init__(
        self,
        *,
        count: int,
        owed: int,
        request_flush: Callable[[Receipt], None],
        id_base: int = 0,
        unrouted: int = 0,
        shed: int = 0,
    ) -> None:
        self.count = count
        self.shed = shed
        self.id_base = id_base
        self.logged = "memory"
        self.unstored = self._unrouted = unrouted
        self._owed = owed
        self._request_flush = request_flush
        self._event: threading.Event | None = None
        self._callbacks: list[Callable[[Receipt], None]] | None = None

    @property
    def done(self) -> bool:
        """Whether every required sink has settled all records of the offer, well or not."""
        return self._owed == 0

    def request_flush(self) -> None:
        """Ask the batches that hold these records to close now rather than at their time."""
        if self._owed:
            self._request_flush(self)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until done, at most `timeout_s`; returns whether it is."""
        with _lock:
            if self._owed == 0:
                return True
            if self._event is None:
                self._event = threading.Event()
            event = self._event
        return event.wait(timeout_s)

    def add_done_callback(self, callback: Callable[[Receipt], None]) -> None:
        """Call `callback(receipt)` once done: at once if it is, else on the settling thread.

        It must be quick; what it raises is logged.
        """
        with _lock:
            if self._owed:
                self._callbacks = [*(self._callbacks or ()), callback]
                return
        self._call(callback)

    def settled_one(self, unstored: int = 0) -> None:
        """One required sink has settled its share, `unstored` of it in vain; for the engine."""
        settle([(self, unstored)])

    def _call(self, callback: Callable[[Receipt], None]) -> None:
        """Whoever settles serves many receipts: one callback's error stays its own."""
        try:
            callback(self)
        except Exception:
            log.exception("a receipt's callback failed")


def settle(shares: Iterable[tuple[Receipt, int]]) -> None:
    """For each receipt one required sink has settled its share, so many records of it in vain."""
    awaited: list[Receipt] = []
    with _lock:
        for receipt, unstored in shares:
            unstored += receipt._unrouted
            if unstored > receipt.unstored:
                receipt.unstored = unstored  # before `done` can be seen
            receipt._owed -= 1
            if not receipt._owed and (receipt._event or receipt._callbacks):
                awaited.append(receipt)
    for receipt in awaited:
        if receipt._event is not None:
            receipt._event.set()
        for callback in receipt._callbacks or ():
            receipt._call(callback)
