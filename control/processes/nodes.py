"""Record-id numbers: each process makes ids with a number that no other process has.

A number is leased to a data directory in the database (`control.IdNode`) and locked there by
one process at a time, so that a later process of the same directory uses it again, also without
a database. A lease covers times, and ids carry their time: whoever takes an expired number over
begins where the lease ended. The number's file says up to when ids may have been given, some
seconds ahead, so that ids go on upwards after a crash and after the clock was set back.

Without a database and without a leased number, a process takes one of the upper half at random
and says so: another process could have drawn the same.

A `NodeLease` is used by one thread at a time: the one that takes it, then the heart's. Its
`ids` are for any thread.
"""

from __future__ import annotations

import logging
import secrets
import threading
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from django.db import Error as DatabaseProblem

from control.ports.panels import Problem, register_problems
from control.processes.identity import moment
from control.processes.models import NODE_NUMBERS
from control.processes.nodefiles import NodeFile, NodeFiles, NumberLock
from control.processes.noderegistry import (
    ATTEMPTS,
    LEASED_NUMBERS,
    DatabaseRegistry,
    Registry,
)
from pipeline.ids import RecordIds
from pipeline.runtime.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

LEASE = timedelta(days=3)
RENEW_INTERVAL_S = 3600.0
RESERVE_INTERVAL_S = 2.0
# Longer than the heart may be held up between two reservations.
RESERVE_AHEAD_US = 10_000_000
# Ids run ahead of the clock only by their sequence: 4,096 a millisecond.
RUN_AHEAD_US = 1_000_000
# Set aside a number whose ids went further ahead than this (the clock was wrong): going on from
# there would file records under days to come.
MAX_AHEAD_US = 3_600_000_000


class NodeLease:
    """A number in use by this process."""

    def __init__(
        self,
        *,
        file: NodeFile,
        lock: NumberLock,
        files: NodeFiles,
        registry: Registry,
        clock: Clock,
        not_before_us: int,
    ) -> None:
        self._file = file
        self._number_lock = lock
        self._files = files
        self._registry = registry
        self._clock = clock
        self._lock = threading.Lock()
        self._released = False
        self.contested = False
        self.ids = RecordIds(node=file.number, clock=clock, not_before_us=not_before_us)
        self.reserve()

    @property
    def number(self) -> int:
        return self._file.number

    @property
    def provisional(self) -> bool:
        return self._file.provisional

    def reserve(self) -> None:
        """Note that ids up to some seconds from now may be given."""
        ahead = max(
            self._clock.time_us() + RESERVE_AHEAD_US, self.ids.reserved_until_us + RUN_AHEAD_US
        )
        with self._lock:
            if not self._released:
                self._write(ahead)

    def renew(self) -> None:
        """Extend the lease. Raises `django.db.Error` when the database is away."""
        if self.provisional:
            return
        until = moment(self._clock.time_us()) + LEASE
        if self._registry.confirm(number=self.number, holder=self._files.holder, until=until):
            with self._lock:
                self._file = _replace(self._file, leased_until_us=_us(until))
            self.reserve()
        elif not self.contested:
            self.contested = True
            logger.error(
                "this process's record-id number was given to another data directory; "
                "restart this process to take a new one",
                extra={"number": self.number},
            )

    def release(self) -> None:
        """Give the number back to the data directory, with the time up to which it was used."""
        with self._lock:
            if self._released:
                return
            self._released = True
            try:
                self._write(self.ids.reserved_until_us)
            except OSError as error:
                logger.warning(
                    "the record-id reservation was not shortened", extra={"error": str(error)}
                )
            self._number_lock.release()

    def problems(self) -> list[Problem]:
        """What the operator should know of this lease."""
        if self._released or not (self.provisional or self.contested):
            return []
        return [
            Problem(
                severity="warning",
                title="Record ids are made with a number that another process could have",
                cause=(
                    f"Number {self.number} was given to another data directory meanwhile."
                    if self.contested
                    else f"Number {self.number} was drawn at random: none could be leased when "
                    "the process started."
                ),
                remedy="Restart the process while the control database answers.",
            )
        ]

    def abandon(self) -> None:
        """In a forked child: the number is the parent's."""
        self._number_lock.release()

    def _write(self, reserved_until_us: int) -> None:
        self._file = _replace(self._file, reserved_until_us=reserved_until_us)
        self._files.write(self._file)


def take_node(
    *, data_dir: Path, registry: Registry | None = None, clock: Clock | None = None
) -> NodeLease:
    """A number for this process: one of this data directory's, a newly leased one, or one drawn."""
    files = NodeFiles(data_dir=data_dir)
    registry = registry or DatabaseRegistry()
    lease = _Taking(files, registry, clock or SystemClock()).take()
    register_problems(lease.problems, name="record-ids")
    return lease


class _Taking:
    def __init__(self, files: NodeFiles, registry: Registry, clock: Clock) -> None:
        self._files = files
        self._registry = registry
        self._clock = clock
        self._now_us = clock.time_us()
        self._until = moment(self._now_us) + LEASE
        self._database_error: DatabaseProblem | None = None

    def take(self) -> NodeLease:
        for _ in range(ATTEMPTS):
            lease = self._one_of_ours() or self._newly_leased()
            if lease is not None:
                return lease
            if self._database_error is not None:
                break
        return self._drawn()

    def _one_of_ours(self) -> NodeLease | None:
        for file in self._files.known():
            if file.provisional:
                continue
            lock = self._files.lock(file.number)
            if lock is None:
                continue
            # Read again under the lock: its last user may have written meanwhile.
            current = self._files.read(file.number) or file
            if current.reserved_until_us - self._now_us <= MAX_AHEAD_US:
                lease = self._confirmed(current, lock)
                if lease is not None:
                    return lease
            lock.release()
        return None

    def _confirmed(self, file: NodeFile, lock: NumberLock) -> NodeLease | None:
        until_us = file.leased_until_us
        if self._database_error is None:
            try:
                if not self._registry.confirm(
                    number=file.number, holder=self._files.holder, until=self._until
                ):
                    self._files.forget(file.number)
                    return None
                until_us = _us(self._until)
            except DatabaseProblem as error:
                self._database_error = error
        if until_us <= self._now_us:
            return None
        return self._lease(_replace(file, leased_until_us=until_us), lock)

    def _newly_leased(self) -> NodeLease | None:
        if self._database_error is not None:
            return None
        now = moment(self._now_us)
        try:
            leased = self._registry.lease(holder=self._files.holder, now=now, until=self._until)
        except DatabaseProblem as error:
            self._database_error = error
            return None
        if leased is None:
            return None
        number, since = leased
        lock = self._files.lock(number)
        if lock is None:
            return None
        file = NodeFile(
            number=number,
            holder=self._files.holder,
            reserved_until_us=_us(since),
            leased_until_us=_us(self._until),
        )
        return self._lease(file, lock)

    def _drawn(self) -> NodeLease:
        drawn_before = [file.number for file in self._files.known() if file.provisional]
        upper = range(LEASED_NUMBERS, NODE_NUMBERS)
        shuffled = secrets.SystemRandom().sample(upper, len(upper))
        for number in [*drawn_before, *shuffled]:
            lock = self._files.lock(number)
            if lock is None:
                continue
            reason = (
                "the control database does not answer"
                if self._database_error is not None
                else "every record-id number is leased"
            )
            logger.warning(
                "record ids are made with a provisional number: %s; another process could have "
                "drawn the same number until this one is restarted",
                reason,
                extra={"number": number},
            )
            file = self._files.read(number) or NodeFile(
                number=number,
                holder=self._files.holder,
                reserved_until_us=0,
                leased_until_us=0,
                provisional=True,
            )
            return self._lease(file, lock)
        raise RuntimeError(f"all {len(upper)} provisional record-id numbers are in use here")

    def _lease(self, file: NodeFile, lock: NumberLock) -> NodeLease:
        try:
            return NodeLease(
                file=file,
                lock=lock,
                files=self._files,
                registry=self._registry,
                clock=self._clock,
                not_before_us=file.reserved_until_us,
            )
        except BaseException:
            lock.release()
            raise


def _replace(file: NodeFile, **changes: int) -> NodeFile:
    return msgspec.structs.replace(file, **changes)


def _us(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000)
