"""How much those that were refused will come back with, and when: the queue that waits outside.

Without it all who are refused within a second would be told the same moment; they would come at
once, most would be refused again, and each refusal takes from those that could be served.  So each
is told when its turn is, behind those that were told before it.

Nobody has to come back, and some come without waiting.  So this adds `AHEAD_MAX_S` at most, and who
was due is forgotten.  Guarded by the lock of the admission that owns it.
"""

from __future__ import annotations

import heapq
import math
from typing import NamedTuple

# The longest that others' turns may add to what an offer is told (seconds).
AHEAD_MAX_S = 10.0
# Turns are counted by tenths of a second, so that however many are refused little is kept.
TICKS_PER_S = 10


class Turn(NamedTuple):
    """So many records come back at this tick."""

    tick: int
    records: int


NO_TURN = Turn(-1, 0)


class Comebacks:
    def __init__(self) -> None:
        self._ticks: list[int] = []
        self._by_tick: dict[int, int] = {}
        self._records = 0

    def tell(self, records: int, *, after_s: float, rate: float, now: float) -> tuple[float, Turn]:
        """When (in seconds) an offer of so many records should come back, which alone would
        after `after_s`; `rate` is how many records leave a second.  The turn it has then."""
        while self._ticks and self._ticks[0] <= now * TICKS_PER_S:
            self._records -= self._by_tick.pop(heapq.heappop(self._ticks))
        if rate <= 0:
            return after_s, NO_TURN
        ahead_s = self._records / rate
        if ahead_s >= AHEAD_MAX_S:
            return after_s + AHEAD_MAX_S, NO_TURN
        turn = Turn(math.ceil((now + after_s + ahead_s) * TICKS_PER_S), records)
        self._add(turn)
        return after_s + ahead_s, turn

    def take_back(self, turn: Turn) -> None:
        """It does not come back: it waits, and was let in or is told anew."""
        if turn.tick in self._by_tick:
            self._by_tick[turn.tick] -= turn.records
            self._records -= turn.records

    def _add(self, turn: Turn) -> None:
        if turn.tick not in self._by_tick:
            self._by_tick[turn.tick] = 0
            heapq.heappush(self._ticks, turn.tick)
        self._by_tick[turn.tick] += turn.records
        self._records += turn.records
