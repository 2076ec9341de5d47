"""Who finds out whether a service is well again, and when the others come to look.

While a breaker is not closed each asker (a step of a type) has one scout, a job that comes back as
soon as a call may be made; its other jobs come later the more often the service was found unwell,
at most HELD_S later.  The call that finds out is made in turns: whoever's call failed last lets
those go first whose scout is still expected, so that one step that hangs keeps nobody else away.

Pure; used under the guard's lock.
"""

from __future__ import annotations

# The longest that those who are no scouts stay away beyond the breaker's own pause.
HELD_S = 60.0
# A scout may be so much later than it was told: that is spread, and then it is claimed.
LATE_SHARE = 0.25
LATE_S = 3.0
# While a call finds out, the others look again after this long, then after as long as it takes.
LOOK_AGAIN_S = 1.0
MAX_ASKERS = 1_000
# Its multiples lie evenly between 0 and 1, however many there are.
_GOLDEN = 0.6180339887498949


class Turns:
    """Since the breaker was closed last."""

    def __init__(self) -> None:
        self.opened_by = ""
        """Whose call failed last."""
        self._opened = 0
        self._open_s = 0.0
        self._failed: dict[str, int] = {}  # how often it was opened when its call failed
        self._scouts: dict[str, tuple[float, float]] = {}  # when each comes back, and is given up
        self._held = 0
        self._probe = (0.0, 0.0)  # from, and its timeout

    def opened(self, asker: str, open_s: float) -> None:
        """A call of this asker opened the breaker, the first or another time."""
        self._opened += 1
        self._open_s = open_s
        self.opened_by = asker
        self._failed[asker] = self._opened

    def began(self, asker: str, now: float, timeout_s: float) -> None:
        """A call of this asker finds out."""
        self._scouts.pop(asker, None)
        self._probe = (now, timeout_s)

    def others_s(self, asker: str, now: float) -> float:
        """Seconds until somebody comes who goes first; 0: the turn is this one's."""
        failed = self._failed.get(asker, 0)
        waits = [
            max(LOOK_AGAIN_S, back_at - now)
            for other, (back_at, until) in self._scouts.items()
            if other != asker and now < until and self._failed.get(other, 0) < failed
        ]
        return min(waits, default=0.0)

    def probe_s(self, now: float) -> float:
        """When to look again while a call finds out: seldom, the longer it takes."""
        since, timeout_s = self._probe
        age = now - since
        return max(LOOK_AGAIN_S, min(age, timeout_s - age))

    def away_s(self, asker: str, due_s: float, now: float) -> float:
        """How long a job of this asker stays away, where a call may be made in `due_s`."""
        scout = self._scouts.get(asker)
        # One that comes long before a call may be made looks for nothing.
        if scout is None or now >= scout[0] or scout[0] + LATE_S < now + due_s:
            if len(self._scouts) >= MAX_ASKERS:
                self._scouts.clear()
            self._scouts[asker] = (now + due_s, now + due_s * (1 + LATE_SHARE) + LATE_S)
            return due_s
        self._held += 1
        longest_s = min(HELD_S, self._open_s * 2.0 ** min(self._opened - 1, 20))
        if self._opened <= 1:
            longest_s = 0.0  # it may be over at once
        return due_s + longest_s * (self._held * _GOLDEN % 1.0)
