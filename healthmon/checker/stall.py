"""Whether the checker itself was late: how far its event loop ran behind, and when.

A tick is asked for every TICK_S; one that comes late tells that the loop stood still.  A probe that
ran across such a standstill says nothing about its target when it failed or was slow.  Used on the
event loop alone; reading `worst` and `last_end_s` from other threads is harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

TICK_S = 0.05
# A loop that is behind by less judges fairly: timeouts are of seconds.
LATE_S = 0.5


class StallWatch:
    """`on_stall(seconds)` is called after each standstill of at least LATE_S."""

    def __init__(
        self, *, monotonic: Callable[[], float], on_stall: Callable[[float], None] | None = None
    ) -> None:
        self._monotonic = monotonic
        self._on_stall = on_stall
        self._handle: asyncio.TimerHandle | None = None
        self._expected_s = float("inf")
        # When the last standstill ended; what began before that was disturbed by it.
        self.last_end_s = float("-inf")
        self.lag_s = 0.0
        self.stalls = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ask()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def disturbed(self, began_s: float) -> bool:
        """Whether the loop stood still at some time since `began_s`, be it until just now."""
        return began_s < self.last_end_s or self._monotonic() - self._expected_s > LATE_S

    def _ask(self) -> None:
        self._expected_s = self._monotonic() + TICK_S
        self._handle = self._loop.call_later(TICK_S, self.tick)

    def tick(self) -> None:
        """The loop came round; how late is what it ran behind."""
        now = self._monotonic()
        self.lag_s = max(0.0, now - self._expected_s)
        if self.lag_s > LATE_S:
            self.last_end_s = now
            self.stalls += 1
            if self._on_stall is not None:
                self._on_stall(self.lag_s)
        self._ask()
