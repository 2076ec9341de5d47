"""The claimer: one thread of a runner that keeps its workers in work.

It claims as many jobs as there is room for, when the waker tells of new ones, when a worker is free
and more are known to wait, and every `poll_s`, give or take a fifth: the database is the truth, a
wake-up only saves time.  Scheduled jobs whose time has come are queued on the way.

A claim that raised may have taken jobs all the same: what the runner holds by the book and does not
have in its hands is given back, then and every `audit_s`.  Only this thread can do that: nobody
else knows that no claim is under way.

The thread is that of `Rounds`; what is here is its own, but for figures that others read and
`_stopping`, which ends a round early.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection
from uuid import UUID

from django.db import connections

from control.databases.causes import cause_of, is_loss
from jobs.store.protocol import Claimed, Store
from pipeline.runtime.clock import Clock
from pipeline.runtime.rounds import Rounds

logger = logging.getLogger(__name__)

MAX_CLAIM = 256
JITTER = 0.2
# While jobs wait for their type's limits, they are looked for after this, then twice as long.
LIMITED_S = 0.025


class Claimer:
    """`room` says how many jobs to claim, `take` gets them; `types` those that may be claimed.

    `holding` are the jobs that the runner has in its hands.
    """

    def __init__(
        self,
        *,
        store: Store,
        runner: Callable[[], str],
        label: str,
        room: Callable[[], int],
        take: Callable[[list[Claimed]], None],
        holding: Callable[[], Collection[UUID]],
        types: Callable[[], Collection[int]],
        poll_s: float,
        audit_s: float,
        clock: Clock,
        jitter: Callable[[], float] = random.random,
        retire: Callable[[], None] = connections.close_all,
    ) -> None:
        self._store = store
        self._runner = runner
        self._label = label
        self._room = room
        self._take = take
        self._holding = holding
        self._types = types
        self._poll_s = poll_s
        self._audit_s = audit_s
        self._clock = clock
        self._jitter = jitter
        self._rounds = Rounds(name="jobs-claimer", round=self._turn, clock=clock, ended=retire)
        self._stopping = False
        self.more = False
        """Whether jobs are known to wait that could be claimed if there were room."""
        self._limited_s = 0.0  # how long to wait for limits; 0 while none are in the way
        self._look_at = self._promote_at = self._audit_at = 0.0
        self._in_doubt = ""  # the runner whose claim raised
        self.claimed = 0
        self.failing = ""

    def start(self) -> None:
        self._rounds.start()

    def stop(self, deadline_s: float) -> bool:
        """Claim nothing more; True when the thread has ended in time."""
        self._stopping = True
        return self._rounds.stop(deadline_s)

    def nudge(self) -> None:
        """There may be something to claim."""
        self._rounds.call()

    def freed(self) -> None:
        """A worker has room again: of interest while more jobs are known to wait."""
        if self.more or self._limited_s:
            self.nudge()

    # --- the thread ------------------------------------------------------------------------

    def _turn(self) -> float:
        """Do what is due; returns the seconds until something will be."""
        try:
            now = self._clock.monotonic()
            if now >= self._promote_at:
                pause_s = self._poll_s * (1 + JITTER * (2 * self._jitter() - 1))
                self._promote_at = now + pause_s
                self._store.promote()
            # Sooner than that only for limits that are still in the way.
            self._look_at = self._promote_at
            if now >= self._audit_at:
                self._audit_at = now + self._audit_s
                self._audit()
            self._fill()
        except Exception as error:
            self._say(error)
            pause_s = min(self._poll_s, 1.0)
            self._promote_at = self._look_at = self._clock.monotonic() + pause_s
        else:
            self._say(None)
        return min(self._promote_at, self._look_at) - self._clock.monotonic()

    def _audit(self) -> None:
        runner = self._runner()
        found = self._store.give_back(runner, keep=self._holding())
        if found:
            logger.warning(
                "jobs that this runner held by the book and not in its hands were given back",
                extra={"runner": runner, "jobs": found},
            )

    def _fill(self) -> None:
        if self._in_doubt:
            self._store.give_back(self._in_doubt, keep=self._holding())
            self._in_doubt = ""
        while not self._stopping:
            room = min(self._room(), MAX_CLAIM)
            if room <= 0:
                # What wakes us now is of interest when there is room.
                self.more = self.more or self._store.has_queued()
                return
            types = self._types()
            if not types or not (self.more or self._store.has_queued()):
                self.more, self._limited_s = False, 0.0
                return
            runner = self._in_doubt = self._runner()
            jobs = self._store.claim(runner, self._label, room, types=types)
            self._in_doubt = ""
            self.more = len(jobs) >= room
            self.claimed += len(jobs)
            if jobs:
                self._take(jobs)
            if not self.more:
                self._mind_limits(bool(jobs))
                return

    def _mind_limits(self, got_some: bool) -> None:
        """Fewer came than there was room for: jobs that still wait do so for their type's limits.

        Its rate gives them out with time, its number when one ends, perhaps another runner's.
        """
        if not self._store.has_queued():
            self._limited_s = 0.0
            return
        wait_s = LIMITED_S if got_some or not self._limited_s else 2 * self._limited_s
        self._limited_s = min(wait_s, self._poll_s)
        self._look_at = min(self._look_at, self._clock.monotonic() + self._limited_s)

    def _say(self, error: Exception | None) -> None:
        words = "" if error is None else cause_of(error)
        if words == self.failing:
            return
        self.failing = words
        if error is None:
            logger.info("jobs can be claimed again")
        elif is_loss(error):
            logger.warning("jobs cannot be claimed", extra={"cause": words})
        else:
            logger.error("jobs cannot be claimed", exc_info=error)
