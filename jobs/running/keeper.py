"""The keeper: holds the runner's lease, hears of cancellations, and rescues what dead runners held.

One thread, "jobs-lease".  Every third of a lease it beats; each second it asks which of the held
jobs are to be cancelled.  A database that does not answer takes nothing from anybody: what runs
goes on, as its writes are fenced, but nothing new is begun until a beat was answered within a
lease.  A beat that is refused says that others thought this runner dead: its jobs are theirs now,
and it joins anew under another name.

Everything here is used by that thread alone, but for `runner` and the figures, which are replaced
whole.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import connections

from control.databases.causes import cause_of, is_loss
from jobs.running.watch import Watch
from jobs.store.protocol import Store
from pipeline.runtime.clock import Clock
from pipeline.runtime.rounds import Rounds

logger = logging.getLogger(__name__)

BEATS_A_LEASE = 3
LOOK_S = 1.0
# A clock that went back by more than this was set.
STEP_S = 2.0


class Keeper:
    """Callbacks come on the keeper's thread.

    `on_lost()`: what is held belongs to others.  `on_fresh(True)`: jobs may be begun; `False`: not
    until the database has said that the lease is ours.  `on_cancel(asked)`: these (id, claim) are
    not wanted any more.  `on_rescued(n)`: so many jobs of dead runners are queued again.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        lease_s: float,
        host: str,
        pid: int,
        process: str,
        figures: Callable[[], Mapping[str, Any]],
        attempts: Callable[[], Mapping[int, int]],
        on_lost: Callable[[], None],
        on_fresh: Callable[[bool], None],
        on_cancel: Callable[[Sequence[tuple[UUID, int]]], None],
        on_rescued: Callable[[int], None],
        busy: Callable[[], bool],
        retire: Callable[[], None] = connections.close_all,
    ) -> None:
        self._store = store
        self._clock = clock
        self._lease_s = lease_s
        self._host, self._pid, self._process = host[:255], pid, process
        self._figures = figures
        self._attempts = attempts
        self._on_lost = on_lost
        self._on_fresh = on_fresh
        self._on_cancel = on_cancel
        self._on_rescued = on_rescued
        self._busy = busy
        self._joined = False
        self._beaten_at = float("-inf")
        self._watch = Watch(own="", lease_s=lease_s)
        self._wall_us, self._wall_at = clock.time_us(), clock.monotonic()
        self._rounds = Rounds(name="jobs-lease", round=self._turn, clock=clock, ended=retire)
        self.runner = uuid.uuid4().hex
        self.rescued = 0
        self.lost = 0
        self.share = (0, 1)
        """Which of the living this one is, in an order that all agree on, and how many there are:
        what they share is given out by it."""
        self.failing = ""

    # --- life ------------------------------------------------------------------------------

    def start(self) -> None:
        self._on_fresh(False)
        self._rounds.start()

    def stop(self, deadline_s: float) -> bool:
        """End the thread; the lease stays as it is until `Store.leave`, or runs out."""
        return self._rounds.stop(deadline_s)

    def nudge(self) -> None:
        """Somebody may want something cancelled."""
        self._rounds.call()

    @property
    def living(self) -> int:
        """How many runners live, this one among them."""
        return self.share[1]

    def is_fresh(self) -> bool:
        """Whether the lease was known to be ours within a lease."""
        return self._clock.monotonic() - self._beaten_at < self._lease_s

    # --- the thread ------------------------------------------------------------------------

    def _turn(self) -> float:
        """One look; returns the seconds until the next."""
        now = self._clock.monotonic()
        # Stopped, or starved: others may have taken over.
        if self._joined and now - self._beaten_at >= self._lease_s:
            self._on_fresh(False)
        try:
            if now - self._beaten_at >= self._lease_s / BEATS_A_LEASE:
                self._beat()
            if self._busy():
                asked = self._store.cancels(self.runner)
                if asked:
                    self._on_cancel(asked)
            self._mind_the_clock()
        except Exception as error:
            self._say(error)
        else:
            self._say(None)
        return min(LOOK_S, self._lease_s / BEATS_A_LEASE)

    def _beat(self) -> None:
        now = self._clock.monotonic()
        if not self._joined:
            self._store.join(self.runner, host=self._host, pid=self._pid, process=self._process)
            self._watch = Watch(own=self.runner, lease_s=self._lease_s)
            self._joined = True
        elif not self._store.beat(self.runner, self._figures()):
            logger.warning(
                "this runner was thought dead: its jobs are run by others",
                extra={"runner": self.runner},
            )
            self.lost += 1
            self._on_lost()
            self.runner = uuid.uuid4().hex
            self._joined = False
            self._beat()
            return
        # From before the database was asked: the lease is not longer than others think.
        self._beaten_at = now
        self._on_fresh(True)
        self._rescue()

    def _rescue(self) -> None:
        beats = self._store.runners()
        now = self._clock.monotonic()
        dead = self._watch.look(beats, now)
        for runner, count in dead.items():
            rescued = self._store.rescue(runner, beats=count, lost_at=self._attempts())
            if rescued is None:
                continue
            self.rescued += rescued
            logger.warning(
                "a runner died; the jobs it held are queued again",
                extra={"runner": runner, "jobs": rescued},
            )
            self._on_rescued(rescued)
        alive = sorted({self.runner, *beats} - dead.keys())
        self.share = (alive.index(self.runner), len(alive))

    def _mind_the_clock(self) -> None:
        wall_us, now = self._clock.time_us(), self._clock.monotonic()
        moved_s = (wall_us - self._wall_us) / 1e6 - (now - self._wall_at)
        if moved_s < -STEP_S:
            pulled = self._store.pull_back(-moved_s)
            logger.warning(
                "the machine's clock was set back; jobs to be tried again wait no longer for that",
                extra={"seconds": round(-moved_s, 1), "jobs": pulled},
            )
        self._wall_us, self._wall_at = wall_us, now

    def _say(self, error: Exception | None) -> None:
        words = "" if error is None else cause_of(error)
        if words == self.failing:
            return
        self.failing = words
        if error is None:
            logger.info("the lease on jobs can be renewed again")
        elif is_loss(error):
            logger.warning("the lease on jobs cannot be renewed", extra={"cause": words})
        else:
            logger.error("the lease on jobs cannot be renewed", exc_info=error)
