"""Owns: who may knock at a server that refuses: one at a time, once its time has come.

Workers ask before each request and tell what came of it; `_changed` guards everything.  Without it
every batch that waits would knock for itself, though each was told the same.
"""

from __future__ import annotations

import threading
from enum import Enum

from pipeline.runtime.clock import Clock


class Turn(Enum):
    FREE = "free"  # nothing is known against it
    PROBE = "probe"  # the server refused: this one finds out for all whether it still does
    WAIT = "wait"  # not now


class Gate:
    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._until: float | None = None  # None: open
        self._probing = False
        self._aborted = False

    def enter(self, *, patience_s: float) -> Turn:
        """Wait for one's turn, `patience_s` at most.  Whoever got one says `left` afterwards."""
        with self._changed:
            now = self._clock.monotonic()
            end = now + patience_s
            while not self._aborted:
                if self._until is None:
                    return Turn.FREE
                if not self._probing and now >= self._until:
                    self._probing = True
                    return Turn.PROBE
                if now >= end or self._until > end:
                    return Turn.WAIT
                self._clock.wait(
                    self._changed, (end if self._probing else min(end, self._until)) - now
                )
                now = self._clock.monotonic()
            return Turn.WAIT

    def left(self, turn: Turn, *, refused_for_s: float | None) -> None:
        """What came of it: refused for so many seconds, or None if the server took or judged it."""
        with self._changed:
            if turn is Turn.PROBE:
                self._probing = False
            if refused_for_s is not None:
                self._until = max(self._until or 0.0, self._clock.monotonic() + refused_for_s)
            elif turn is Turn.PROBE:
                self._until = None
            self._changed.notify_all()

    def closed_for_s(self) -> float:
        """How long nobody may knock, 0 if it is open or somebody's turn."""
        with self._changed:
            return max((self._until or 0.0) - self._clock.monotonic(), 0.0)

    def abort(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()
