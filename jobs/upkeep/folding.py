"""Has tallies folded into counts and minutes: by runners, and by servers while none is alive.

Used by one thread.
"""

from __future__ import annotations

from collections.abc import Callable

from jobs.store.protocol import Store

RUNNER_EVERY_S = 1.0
SERVER_EVERY_S = 5.0
# So much folded at once says that there is more.
MANY = 5_000


class Folding:
    def __init__(self, *, store: Store) -> None:
        self._store = store

    def run(self) -> float | None:
        """Fold once; returns 0.0 where there is probably more."""
        return 0.0 if self._store.fold() >= MANY else None


class NobodyElse:
    """Does something only while no runner is alive: none has beaten since the look before."""

    def __init__(self, *, store: Store, run: Callable[[], float | None]) -> None:
        self._store = store
        self._run = run
        self._seen: dict[str, int] | None = None

    def run(self) -> float | None:
        seen, self._seen = self._seen, self._store.runners()
        if seen is None:
            return None  # who has just begun to look cannot know
        if any(seen.get(runner) != beats for runner, beats in self._seen.items()):
            return None
        return self._run()
