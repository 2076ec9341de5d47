"""A bound on the bytes of all request bodies that are being read and inflated at one time.

Request threads reserve before they read, and grow their reservation while inflating, so memory
is bounded before a single record exists.  One lock guards the sum.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from pipeline.errors import Saturated, TooLarge


class Reservation:
    """Bytes held in a gate by one request; released once, on exit or by `release`."""

    __slots__ = ("_gate", "nbytes")

    def __init__(self, gate: ByteGate, nbytes: int) -> None:
        self._gate = gate
        self.nbytes = nbytes

    def grow(self, nbytes: int) -> None:
        """Reserve `nbytes` more; raises Saturated and keeps what it had if there is no room."""
        self._gate._take(nbytes, self.nbytes + nbytes)
        self.nbytes += nbytes

    def release(self) -> None:
        nbytes, self.nbytes = self.nbytes, 0
        self._gate._give(nbytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class ByteGate:
    """At most `limit_bytes` reserved at once, by any number of threads."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._held = 0

    @property
    def held_bytes(self) -> int:
        return self._held

    def reserve(self, nbytes: int) -> Reservation:
        """Room for `nbytes`, or Saturated (no room now) or TooLarge (more than the gate holds)."""
        self._take(nbytes, nbytes)
        return Reservation(self, nbytes)

    def _take(self, nbytes: int, total: int) -> None:
        if total > self.limit_bytes:
            raise TooLarge(
                f"{total} bytes is more than all requests together may hold "
                f"({self.limit_bytes} bytes)",
                limit=f"gate_bytes={self.limit_bytes}",
            )
        with self._lock:
            if self._held + nbytes <= self.limit_bytes:
                self._held += nbytes
                return
        raise Saturated("the bodies of other requests fill the memory set aside for them")

    def _give(self, nbytes: int) -> None:
        with self._lock:
            self._held -= nbytes
