"""How the toy answers: decided by a seed, the call's token and how often it came before, so that a
run can be repeated whatever order its calls come in.  `down` is by the clock.  Safe to share.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

OK, FAIL, HANG, DOWN = "ok", "fail", "hang", "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """Rates are shares of the calls, from 0 to 1; times are seconds.

    It is down for `down_for_s` from `down_after_s` after its first call on; never without
    `down_after_s`.
    """

    fail_rate: float = 0.0
    hang_rate: float = 0.0
    latency_s: tuple[float, float] = (0.0, 0.0)
    down_after_s: float | None = None
    down_for_s: float = 30.0
    retry_after_s: float | None = None
    seed: int = 0

    def outcome(self, token: str, nth: int) -> str:
        """What becomes of the n-th call with this token."""
        drawn = self._chance(token, nth, "outcome")()
        if drawn < self.hang_rate:
            return HANG
        return FAIL if drawn < self.hang_rate + self.fail_rate else OK

    def takes_s(self, token: str, nth: int) -> float:
        low, high = self.latency_s
        return low + (high - low) * self._chance(token, nth, "latency")()

    def is_down(self, since_first_s: float) -> bool:
        if self.down_after_s is None:
            return False
        return self.down_after_s <= since_first_s < self.down_after_s + self.down_for_s

    def _chance(self, token: str, nth: int, what: str) -> Callable[[], float]:
        return random.Random(f"{self.seed}:{token}:{nth}:{what}").random  # noqa: S311
