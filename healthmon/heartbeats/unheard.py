"""What the feed told of targets that the checker did not have yet: told again until they hear it.

The feed may be ahead of the checker's picture: a target that was made a moment ago, slots that were
just taken, a lease in doubt.  On the checker's event loop alone; no locks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from healthmon.heartbeats.feed import Found
from healthmon.probes.kind import Result
from healthmon.targets.models import slot_of
from pipeline.runtime.clock import Clock, SystemClock

# A target that was deleted will never be here.
GIVEN_UP_AFTER_S = 300.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    found: Found
    since_s: float


class Unheard:
    """`hear(target_id, at_us, result)` answers whether it was taken in; `held` are our slots.

    Of each target the newest is kept, which says what is true now.
    """

    def __init__(
        self,
        *,
        hear: Callable[[int, int, Result], bool],
        held: Callable[[], Collection[int]],
        clock: Clock | None = None,
    ) -> None:
        self._hear = hear
        self._held = held
        self._clock = clock or SystemClock()
        self._waiting: dict[int, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def tell(self, found: Found) -> None:
        """Tell of it now, or as soon as its target is here."""
        # What still waits is older, and must not be told after this.
        self._waiting.pop(found.target_id, None)
        if not self._hear(*found):
            self._waiting[found.target_id] = _Waiting(found, self._clock.monotonic())

    def beat(self) -> None:
        """Each second."""
        if not self._waiting:
            return
        held, now_s = self._held(), self._clock.monotonic()
        for target_id, one in list(self._waiting.items()):
            # Whoever loses a slot and gets it again is told everything anew by the feed.
            gone = held and slot_of(target_id) not in held
            if gone or now_s - one.since_s > GIVEN_UP_AFTER_S or self._hear(*one.found):
                del self._waiting[target_id]
