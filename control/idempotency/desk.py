"""The desk: one thread that talks to the control database for all requests with a key.

Requests hand in jobs and wait for a bounded time; the thread takes all that wait into one
transaction, so that they share a commit.  A database that fails or hangs closes the desk: keyed
requests are then refused at once, while the thread tries every second whether it is back.  A claim
to be marked done or given back is tried until that succeeds.  Each such loose end belongs to a
request that had its claim before the database went, so their number is bounded by the requests at
work; should the process die first, whoever adopts its log settles them.

`_condition` guards everything here but the store; no database is touched under it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Protocol
from uuid import UUID

from django.db import InterfaceError, OperationalError

from control.idempotency.claims import Claim, Outcome, Wanted
from control.idempotency.jobs import Ask, Busy, End, Unavailable, in_doubt, round_of
from control.idempotency.store import Round
from control.processes.identity import moment
from pipeline.runtime.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

MAX_ROUND = 64
RETRY_S = 1.0
# An idle desk gives its connection back.
IDLE_S = 5.0


class Rounds(Protocol):
    """What the desk has done for it, a transaction at a time."""

    def run(self, round: Round, now: datetime) -> list[Outcome]: ...

    def close(self) -> None: ...

    def cut(self) -> None: ...


class Desk:
    def __init__(
        self, *, store: Rounds, wait_s: float, limit: int, clock: Clock | None = None
    ) -> None:
        """At most `limit` requests wait for their claims, each at most `wait_s`."""
        self._store = store
        self._wait_s = wait_s
        self._limit = limit
        self._clock = clock or SystemClock()
        self._condition = threading.Condition()
        self._asks: list[Ask] = []
        self._ends: list[End] = []
        self._waiting = 0
        self._active: dict[UUID, Claim] = {}
        self._closed_until: float | None = None
        self._round_began: float | None = None
        self._running = False
        self._stopping = False
        self._thread: threading.Thread | None = None

    # --- life ------------------------------------------------------------------------------

    def start(self) -> None:
        with self._condition:
            if self._thread is not None:
                return
            self._stopping, self._running = False, True
            self._thread = threading.Thread(
                target=self._run, name="control-idempotency", daemon=True
            )
            self._thread.start()

    def stop(self, deadline_s: float) -> bool:
        """Record what is done, then end; returns whether the thread ended and nothing is left."""
        with self._condition:
            thread, self._stopping = self._thread, True
            self._condition.notify_all()
        if thread is None:
            return True
        thread.join(deadline_s)
        if thread.is_alive():
            self._store.cut()
            thread.join(min(1.0, deadline_s))
        with self._condition:
            if not thread.is_alive():
                self._thread = None
            return self._thread is None and not self._ends

    # --- request threads -------------------------------------------------------------------

    @property
    def available(self) -> bool:
        """Whether a claim would be tried rather than refused at once."""
        with self._condition:
            return self._running and not self._stopping and self._closed_until is None

    @property
    def waiting(self) -> int:
        with self._condition:
            return self._waiting

    def active(self) -> set[UUID]:
        """The claims that requests of this process hold, or that are still to be recorded."""
        with self._condition:
            return set(self._active)

    def claim(self, wanted: Wanted) -> Outcome:
        """Raises Unavailable or Busy; within `wait_s` in any case."""
        ask = Ask(wanted)
        with self._condition:
            if not self._running or self._stopping or self._closed_until is not None:
                raise Unavailable
            if self._waiting >= self._limit:
                raise Busy
            self._waiting += 1
            try:
                self._asks.append(ask)
                self._condition.notify_all()
                self._await(lambda: ask.answered)
                if not ask.answered:
                    self._abandon(ask)
            finally:
                self._waiting -= 1
        if ask.outcome is None:
            self.cut_overdue(self._wait_s / 2)
            raise Unavailable from ask.error
        return ask.outcome

    def _await(self, true: Callable[[], bool]) -> None:
        """Wait, with `_condition` held, at most `wait_s`."""
        due = self._clock.monotonic() + self._wait_s
        while not true():
            left = due - self._clock.monotonic()
            if left <= 0:
                return
            self._clock.wait(self._condition, left)

    def _abandon(self, ask: Ask) -> None:
        ask.abandoned = True
        if ask in self._asks:
            self._asks.remove(ask)
        self._close("it did not answer in time")

    def finish(
        self,
        claim: Claim,
        *,
        response: str | None = None,
        on_recorded: Callable[[], None] | None = None,
    ) -> None:
        """The claim's records are in the log.  Waits for the database as long as it may, but what
        it does not take now is recorded later; `on_recorded` is called on the desk's thread."""
        self._hand_in(End(claim, released=False, response=response, on_recorded=on_recorded))

    def release(self, claim: Claim) -> None:
        """Nothing was kept: the key may be used again.  Recorded later if need be."""
        self._hand_in(End(claim, released=True))

    def _hand_in(self, end: End) -> None:
        with self._condition:
            self._ends.append(end)
            self._condition.notify_all()
            if self._running and self._closed_until is None:
                self._await(lambda: end.recorded or self._closed_until is not None)

    def cut_overdue(self, after_s: float | None = None) -> None:
        """End a round that takes longer than `after_s`, else than a request may wait."""
        limit = self._wait_s if after_s is None else after_s
        with self._condition:
            began = self._round_began
            overdue = began is not None and self._clock.monotonic() - began >= limit
        if overdue:
            self._store.cut()

    # --- the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                with self._condition:
                    if not self._wait_for_work():
                        return
                    asks, self._asks = self._asks[:MAX_ROUND], self._asks[MAX_ROUND:]
                    ends = self._ends[:MAX_ROUND]
                    self._round_began = self._clock.monotonic()
                try:
                    self._round(asks, ends)
                finally:
                    with self._condition:
                        self._round_began = None
        finally:
            self._store.close()
            with self._condition:
                self._running = False
                self._refuse(self._asks, None)
                self._asks = []

    def _wait_for_work(self) -> bool:
        """Wait for something to do; False when there is nothing left and it is to stop."""
        idle = False
        while True:
            closed = self._closed_until
            if closed is not None:
                left = closed - self._clock.monotonic()
                if left <= 0 or self._stopping:
                    return not self._stopping or self._last_try()
                self._clock.wait(self._condition, left)
            elif self._asks or self._ends:
                return True
            elif self._stopping:
                return False
            elif idle:
                self._clock.wait(self._condition, None)
            else:
                self._clock.wait(self._condition, IDLE_S)
                idle = not (self._asks or self._ends or self._stopping)
                if idle:
                    self._store.close()

    def _last_try(self) -> bool:
        """Once more before the end, if there is anything to record."""
        if not self._ends or not self._running:
            return False
        self._running = False
        return True

    def _round(self, asks: list[Ask], ends: list[End]) -> None:
        try:
            outcomes = self._store.run(round_of(asks, ends), self._now())
        except (OperationalError, InterfaceError) as error:
            with self._condition:
                self._close(type(error).__name__)
                self._refuse(asks, error)
                # The answer to the commit may be what was lost.
                self._ends += [End(in_doubt(ask.wanted), released=True) for ask in asks]
            return
        except Exception as error:
            self._one_by_one(asks, ends, error)
            return
        self._settle(asks, outcomes, ends)

    def _one_by_one(self, asks: list[Ask], ends: list[End], error: Exception) -> None:
        """One job that the database refuses must not cost the others of its round theirs."""
        if len(asks) + len(ends) > 1:
            for ask in asks:
                self._round([ask], [])
            for end in ends:
                self._round([], [end])
            return
        logger.error("the control database refused an idempotency key's claim", exc_info=error)
        with self._condition:
            self._refuse(asks, error)
            # Given up: its owner's sweep, or its expiry, will end the claim.
            self._forget(ends)

    def _settle(self, asks: list[Ask], outcomes: list[Outcome], ends: list[End]) -> None:
        with self._condition:
            if self._closed_until is not None:
                self._closed_until = None
                logger.info("the control database answers again: keyed requests are taken")
            for ask, outcome in zip(asks, outcomes, strict=True):
                if isinstance(outcome, Claim):
                    self._active[outcome.id] = outcome
                    if ask.abandoned:
                        self._ends.append(End(outcome, released=True))
                ask.outcome = outcome
            self._forget(ends)
        for end in ends:
            if end.on_recorded is not None:
                try:
                    end.on_recorded()
                except Exception:
                    logger.exception("a recorded claim's callback failed")

    def _forget(self, ends: list[End]) -> None:
        for end in ends:
            end.recorded = True
            self._active.pop(end.claim.id, None)
        self._ends = [end for end in self._ends if not end.recorded]
        self._condition.notify_all()

    def _refuse(self, asks: list[Ask], error: Exception | None) -> None:
        for ask in asks:
            ask.error = error or Unavailable()
        self._condition.notify_all()

    def _close(self, why: str) -> None:
        if self._closed_until is None:
            logger.warning(
                "keyed requests are refused: the control database is away", extra={"cause": why}
            )
        self._closed_until = self._clock.monotonic() + RETRY_S
        self._condition.notify_all()

    def _now(self) -> datetime:
        return moment(self._clock.time_us())
