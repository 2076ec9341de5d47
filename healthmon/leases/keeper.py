"""The keeper: holds this checker's share of the slots for as long as nobody else may have them.

Two threads.  "checker-leases" talks to the database: a beat every third of a lease renews, gives
up what is beyond the fair share, and takes what is free.  "checker-pulse" only looks at the clock:
when it was held up for half a lease, so was the whole process (stopped, or starved), and others
may have taken over; everything is given up until the database confirms it.  While the database
does not answer nobody can take anything, and the keeper goes on holding what it has.  One that
answers again after longer than a lease finds everybody's leases run out: for one more beat they
are left to those who held them.  A database that falls silent is waited for no longer than a beat.

`_lock` (of `_wake`) guards the state; `_held` is replaced whole, never changed, so that `epochs`
reads it without the lock.  `_telling` is held while the callbacks run, so that they come one at a
time and in order; they run on either thread, and may call `epochs`, not `stop`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from django.db import connections

from control.databases.causes import cause_of, is_loss
from control.databases.deadline import answered_within
from control.processes.heart import drop_stale_connections
from healthmon.leases.shares import surplus, wanted
from healthmon.leases.store import Picture
from pipeline.runtime.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

BEATS_A_LEASE = 3
PULSES_A_LEASE = 10
# A database that comes back should not be waited for longer than that.
RETRY_S = 1.0
JOIN_S = 5.0


class Store(Protocol):
    """What the keeper asks of `healthmon.leases.store.LeaseStore`."""

    def prepare(self) -> None: ...

    def renew(self, checker: str, *, host: str, pid: int, log_id: str) -> Picture: ...

    def take(self, checker: str, slots: list[int]) -> dict[int, int]: ...

    def release(self, checker: str, slots: list[int]) -> None: ...

    def leave(self, checker: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperStatus:
    """For metrics and the log: `frozen` counts the times that this process was held up."""

    held: int
    living: int
    frozen: int
    taken: int
    lost: int
    database_error: str


class Keeper:
    """`checker_id` must be new for each process: it is what the slots' rows are claimed by.

    `before_taken(former)` is called before `on_taken`, with the last holder of each new slot ("" if
    unknown), so that what a dead checker left in its log can be delivered first.  It holds up
    renewals: let it take less than a third of a lease.
    """

    def __init__(
        self,
        *,
        checker_id: str,
        store: Store,
        lease_s: float,
        on_taken: Callable[[set[int]], None],
        on_lost: Callable[[set[int]], None],
        before_taken: Callable[[Mapping[int, str]], None] | None = None,
        clock: Clock | None = None,
        host: str = "",
        pid: int = 0,
        log_id: str = "",
    ) -> None:
        self.checker_id = checker_id
        self._store = store
        self._lease_s = lease_s
        self._on_taken = on_taken
        self._on_lost = on_lost
        self._before_taken = before_taken
        self._clock = clock or SystemClock()
        self._host, self._pid, self._log_id = host, pid, log_id
        self._telling = threading.Lock()
        self._wake = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._stopping = False
        self._held: dict[int, int] = {}
        self._told: dict[int, int] = {}
        self._former: dict[int, str] = {}
        self._pulse_at = self._clock.monotonic()
        self._frozen = 0
        self._taken = self._lost = self._living = 0
        self._prepared = False
        self._error = ""
        self._heard_at: float | None = None
        self._sparing_until = 0.0

    # --- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to take slots; harmless when it runs already."""
        with self._wake:
            if self._threads:
                return
            self._stopping = False
            self._pulse_at = self._clock.monotonic()
            self._threads = [
                threading.Thread(target=self._run, name="checker-leases", daemon=True),
                threading.Thread(target=self._run_pulse, name="checker-pulse", daemon=True),
            ]
            for thread in self._threads:
                thread.start()

    def stop(self, release: bool = True, *, deadline_s: float = JOIN_S) -> bool:
        """End the threads; True when they ended in time.

        With `release` the slots are handed back at once.  Let the probes end first: what they
        find afterwards belongs to no lease.
        """
        with self._wake:
            threads, self._threads = self._threads, []
            self._stopping = True
            self._wake.notify_all()
        for thread in threads:
            thread.join(deadline_s)
        ended = not any(thread.is_alive() for thread in threads)
        self._hold({})
        self._tell()
        if release and ended:
            self._leave()
        return ended

    # --- what others ask -------------------------------------------------------------------

    def epochs(self) -> dict[int, int]:
        """The slots held now, with their epochs; read it, do not change it.

        Cheap and for any thread.  Empty at the first moment after the process was held up for
        half a lease, before any thread of the keeper's has run.
        """
        if self._clock.monotonic() - self._pulse_at > self._lease_s / 2:
            return {}
        return self._held

    def status(self) -> KeeperStatus:
        with self._wake:
            return KeeperStatus(
                held=len(self._held),
                living=self._living,
                frozen=self._frozen,
                taken=self._taken,
                lost=self._lost,
                database_error=self._error,
            )

    # --- beats -----------------------------------------------------------------------------

    def pulse(self) -> float:
        """Note that the process runs, or that it did not; returns the seconds to the next."""
        now = self._clock.monotonic()
        with self._wake:
            late = now - self._pulse_at
            frozen = late > self._lease_s / 2
            if frozen:
                # First: until `_pulse_at` moves, `epochs` is empty by itself.
                self._held = {}
                self._frozen += 1
                # The database is asked at once what is left.
                self._wake.notify_all()
            self._pulse_at = now
        if frozen:
            logger.warning(
                "this checker was held up; what it held is given up until confirmed",
                extra={"seconds": round(late, 1), "checker": self.checker_id},
            )
            self._tell()
        return self._lease_s / PULSES_A_LEASE

    def beat(self) -> float:
        """Renew, give up, take; returns the seconds until the next beat."""
        self.pulse()
        frozen = self._frozen
        try:
            self._drop_stale()
            self._exchange(frozen)
        except Exception as error:
            self._say_failed(error)
            return min(RETRY_S, self._lease_s / BEATS_A_LEASE)
        finally:
            self._drop_stale()
        if self._error:
            logger.info("leases are renewed again", extra={"checker": self.checker_id})
            self._error = ""
        # What was confirmed before the process was held up says nothing now.
        return 0.0 if frozen != self._frozen else self._lease_s / BEATS_A_LEASE

    def _exchange(self, frozen: int) -> None:
        if not self._prepared:
            with self._answered():
                self._store.prepare()
            self._prepared = True
        with self._answered():
            picture = self._store.renew(
                self.checker_id, host=self._host, pid=self._pid, log_id=self._log_id
            )
        sparing = self._is_sparing()
        held = picture.epochs_of(self.checker_id)
        self._living = len(picture.living)
        for one in picture.slots:
            if one.holder and one.holder != self.checker_id:
                self._former[one.slot] = one.holder
        given = surplus(self.checker_id, picture)
        for slot in given:
            del held[slot]
        # Given up here before others may have it: nothing is probed twice meanwhile.
        self._confirm(held, frozen)
        if given:
            with self._answered():
                self._store.release(self.checker_id, given)
        elif missing := wanted(self.checker_id, picture, sparing=sparing):
            with self._answered():
                taken = self._store.take(self.checker_id, missing)
            self._confirm(held | taken, frozen)

    def _answered(self) -> AbstractContextManager[None]:
        """A dead checker's slots must change hands within a lease and a half, come what may."""
        return answered_within(self._lease_s / BEATS_A_LEASE)

    def _drop_stale(self) -> None:
        with self._answered():  # one of which an error was heard is asked whether it still lives
            drop_stale_connections()

    def _is_sparing(self) -> bool:
        """Note that the database answers; whether others should be given time to notice, too."""
        now = self._clock.monotonic()
        heard_at, self._heard_at = self._heard_at, now
        away = bool(self._error) if heard_at is None else now - heard_at > self._lease_s
        if away:
            self._sparing_until = now + self._lease_s / BEATS_A_LEASE
        return now < self._sparing_until

    def _confirm(self, held: dict[int, int], frozen: int) -> None:
        self.pulse()
        self._hold(held, frozen)
        self._tell()

    def _hold(self, held: dict[int, int], frozen: int | None = None) -> None:
        """Make this what is held, unless the process was held up since `frozen` was read."""
        with self._wake:
            if held and (self._stopping or frozen != self._frozen):
                return
            self._held = held

    def _tell(self) -> None:
        """Bring those who listen up to what is held now."""
        with self._telling:
            held, told = self._held, self._told
            lost = {slot for slot, epoch in told.items() if held.get(slot) != epoch}
            taken = {slot for slot, epoch in held.items() if told.get(slot) != epoch}
            if not lost and not taken:
                return
            self._lost += len(lost)
            self._taken += len(taken)
            logger.info(
                "slots changed hands",
                extra={"taken": len(taken), "lost": len(lost), "held": len(held)},
            )
            if lost:
                self._told = {slot: told[slot] for slot in told if slot not in lost}
                self._call("giving slots up", lambda: self._on_lost(lost))
            if taken:
                self._prepare_to_take(taken)
                if self._call("taking slots", lambda: self._on_taken(taken)):
                    # Otherwise they are told of again at the next beat.
                    self._told = held

    def _prepare_to_take(self, taken: set[int]) -> None:
        before = self._before_taken
        if before is not None:
            former = {slot: self._former.get(slot, "") for slot in sorted(taken)}
            # Done or not, the slots must be probed; what is in that log is delivered later.
            with self._answered():
                self._call("preparing to take slots", lambda: before(former))

    def _call(self, doing: str, callback: Callable[[], None]) -> bool:
        """Run what others gave us; a failure of theirs must not end the keeper's threads."""
        try:
            callback()
        except Exception:
            logger.exception("%s failed", doing, extra={"checker": self.checker_id})
            return False
        return True

    def _leave(self) -> None:
        try:
            with self._answered():
                self._store.leave(self.checker_id)
        except Exception as error:
            logger.warning(
                "the slots were not handed back; others take them when the lease ends",
                extra={"checker": self.checker_id, "cause": cause_of(error)},
            )
        finally:
            self._drop_stale()

    def _say_failed(self, error: Exception) -> None:
        cause = cause_of(error) if is_loss(error) else f"{type(error).__name__}: {error}"
        if cause != self._error:
            logger.warning(
                "leases cannot be renewed; this checker goes on with what it holds",
                extra={"checker": self.checker_id, "held": len(self._held), "cause": cause},
                exc_info=None if is_loss(error) else error,
            )
        self._error = cause

    # --- threads ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                wait_s = self.beat()
                with self._wake:
                    frozen = self._frozen
                    due = self._clock.monotonic() + wait_s
                    while not self._stopping and frozen == self._frozen:
                        left = due - self._clock.monotonic()
                        if left <= 0:
                            break
                        self._clock.wait(self._wake, left)
        finally:
            connections.close_all()

    def _run_pulse(self) -> None:
        while not self._stopping:
            wait_s = self.pulse()
            with self._wake:
                due = self._clock.monotonic() + wait_s
                while not self._stopping and (left := due - self._clock.monotonic()) > 0:
                    self._clock.wait(self._wake, left)
