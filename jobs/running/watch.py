"""Which runners are dead: those whose beats stand still for a lease of the observer's own time.

No wall clock is in it, so that neither a clock that was set nor two machines that differ make a
living runner dead.  Pure; used by one thread.
"""

from __future__ import annotations

from collections.abc import Mapping


class Watch:
    def __init__(self, *, own: str, lease_s: float) -> None:
        self.own = own
        self._lease_s = lease_s
        self._seen: dict[str, tuple[int, float]] = {}
        self._looked_at: float | None = None

    def look(self, beats: Mapping[str, int], now: float) -> dict[str, int]:
        """The runners that are dead, with the beats at which they were seen to stand still."""
        if self._looked_at is not None and now - self._looked_at > self._lease_s / 2:
            # Whoever was held up itself cannot tell how long the others stood still.
            self._seen.clear()
        self._looked_at = now
        dead = {}
        seen = {}
        for runner, count in beats.items():
            if runner == self.own:
                continue
            known = self._seen.get(runner)
            since = known[1] if known is not None and known[0] == count else now
            seen[runner] = (count, since)
            if now - since >= self._lease_s:
                dead[runner] = count
        self._seen = seen
        return dead
