"""How many workers a runner has: the engine's own rule, looked at a few times a second.

Growing is quick, as a job that waits for no reason is what users notice; shrinking is slow.  The
thread "jobs-scaler" also carries the runner's `look` at deadlines and at workers that hang.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from jobs.running.hands import Hands
from pipeline.delivery.autoscaler import AutoscaleSettings, ScaleStats, decide
from pipeline.delivery.workers import WorkerPool
from pipeline.runtime.clock import Clock
from pipeline.runtime.rounds import Rounds

logger = logging.getLogger(__name__)

LOOK_S = 0.25
SHRINK_AFTER_S = 10.0
SETTINGS = AutoscaleSettings(interval_s=LOOK_S, cooldown_s=0.0, up_batches=1)


class Scaler:
    def __init__(
        self,
        *,
        pool: WorkerPool,
        hands: Hands,
        more: Callable[[], bool],
        least: int,
        most: int,
        clock: Clock,
        changed: Callable[[], None],
        look: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._hands = hands
        self._more = more
        self._least, self._most = least, most
        self._clock = clock
        self._changed = changed
        self._look = look
        self._rounds = Rounds(name="jobs-scaler", round=self._turn, clock=clock)
        self._pressed_at = float("-inf")
        self._busiest = 0

    def start(self) -> None:
        self._rounds.start()

    def stop(self, deadline_s: float) -> None:
        self._rounds.stop(deadline_s)

    def _turn(self) -> float:
        try:
            self.scale()
            self._look()
        except Exception:
            logger.exception("the number of workers could not be looked at")
        return LOOK_S

    def scale(self) -> int:
        """Look once; returns the step that was taken: workers more or fewer."""
        self._pool.reap()
        now = self._clock.monotonic()
        workers = len(self._pool.staying)
        busy = len(self._hands.busy())
        waits = self._hands.waiting > 0 or self._more()
        self._busiest = max(self._busiest, busy)
        if waits or busy >= workers:
            self._pressed_at, self._busiest = now, busy
        stats = ScaleStats(
            usage=0.0 if not waits else 0.5,
            workers=workers,
            idle=self._hands.idle,
            busy=float(self._busiest),
            # A job is a batch of its own: one that waits is reason enough.
            waiting_batches=workers + 1 if waits else 0,
            since_change_s=now - self._pressed_at,
        )
        step = decide(stats, SETTINGS, least=self._least, most=self._most)
        if step == 1:
            # As many as would have had work: one at a time would take seconds.
            room = max(1, min(self._hands.waiting, self._most - workers, max(1, workers)))
            grown = sum(self._pool.grow(limit=self._most) for _ in range(room))
            if grown:
                self._pressed_at = now
                self._tell("UP")
                self._changed()
            return grown
        if step == -1 and now - self._pressed_at >= SHRINK_AFTER_S:
            with self._hands.lock:
                shrunk = self._pool.shrink(least=self._least) is not None
                self._hands.work.notify_all()
            if shrunk:
                self._pressed_at, self._busiest = now, 0
                self._tell("Down")
            return -int(shrunk)
        return 0

    def _tell(self, direction: str) -> None:
        logger.info(
            "Scaler: scaling %s, workers = %d",
            direction,
            len(self._pool.staying),
            extra={"pool": "jobs"},
        )
