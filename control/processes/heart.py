"""The heart: one thread per process for everything that happens every few seconds.

Tasks are registered at `ready()` and run one after another on the thread "control-heart", each
when it is due. They must be short; what takes long runs on a thread of its own and comes back
by `nudge`. A task that fails is tried again when it is next due, and says so once, not every
time. When the database does not answer, the beat's other database tasks wait for the next beat
instead of waiting for the same timeout each.

`_condition` guards the tasks and the stop and nudge flags; it is never held while a task runs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from django.db import connections

from control.databases.causes import cause_of, is_loss, is_unprepared
from control.databases.reach import as_the_prober
from pipeline.runtime.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

# Under two seconds, so that a revoked key or a changed sink is honoured within two.
WATCH_INTERVAL_S = 1.5
# The beat's pace while a database task waits for a lost database.
RETRY_S = 2.0
LONGEST_WAIT_S = 60.0
# A database that is busy for a moment is no reason to send traffic elsewhere.
PATIENCE_S = 5
# What a task returns that had nothing to ask its database: that says nothing of the database.
NOT_ASKED = object()


@dataclass(slots=True, kw_only=True)
class _Task:
    name: str
    interval_s: float
    run: Callable[[], object]
    database: str
    due: float = 0.0
    failing: str = ""


@dataclass(slots=True)
class _Watch:
    """Applies a change once it sees one; a failed `apply` is repeated until it succeeds."""

    fingerprint: Callable[[], str]
    apply: Callable[[], None]
    seen: str | None = field(default=None)

    def __call__(self) -> None:
        current = self.fingerprint()
        if current == self.seen:
            return
        self.apply()
        self.seen = current


class Heart:
    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._tasks: dict[str, _Task] = {}
        self._reset()

    def _reset(self) -> None:
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._nudged = False
        self._lost: dict[str, tuple[float, str]] = {}
        self._busy: tuple[str, float] | None = None

    def every(
        self,
        name: str,
        interval_s: float,
        run: Callable[[], object],
        *,
        database: bool = True,
        alias: str = "default",
    ) -> None:
        """Run `run` at start and then every `interval_s`. The same name again replaces the task.

        `database` says whether the task uses one, `alias` which.
        """
        task = _Task(name=name, interval_s=interval_s, run=run, database=alias if database else "")
        with self._condition:
            self._tasks[name] = task
            self._condition.notify_all()

    def watch(
        self,
        name: str,
        fingerprint: Callable[[], str],
        apply: Callable[[], None],
        *,
        seen: str | None = None,
        interval_s: float = WATCH_INTERVAL_S,
    ) -> None:
        """Call `apply` when `fingerprint` tells something new; `seen` has been applied already."""
        self.every(name, interval_s, _Watch(fingerprint, apply, seen))

    def forget(self, name: str) -> None:
        with self._condition:
            self._tasks.pop(name, None)

    def nudge(self, name: str | None = None) -> None:
        """Make a task (or all of them) due now."""
        with self._condition:
            for task in self._tasks.values():
                if name is None or task.name == name:
                    task.due = 0.0
            self._nudged = True
            self._condition.notify_all()

    def start(self) -> None:
        with self._condition:
            if self._thread is not None:
                return
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name="control-heart", daemon=True)
            self._thread.start()

    def stop(self, deadline_s: float) -> bool:
        """End the thread; True when it ended before the deadline. Tasks stay registered."""
        with self._condition:
            thread, self._stopping = self._thread, True
            self._condition.notify_all()
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(deadline_s)
        if thread.is_alive():
            return False
        with self._condition:
            if self._thread is thread:
                self._thread = None
        return True

    def after_fork(self) -> None:
        self._reset()
        for task in self._tasks.values():
            task.due, task.failing = 0.0, ""

    def beat(self) -> float:
        """Run what is due; returns the seconds until something will be."""
        with self._condition:
            self._nudged = False
            now = self._clock.monotonic()
            due = [task for task in self._tasks.values() if task.due <= now]
        # What needs no database first: it must not wait for one that does not answer.
        due.sort(key=lambda task: bool(task.database))
        lost: set[str] = set()
        for task in due:
            if self._stopping:
                break
            if task.database in lost:
                self._postpone(task, RETRY_S)
                continue
            self._postpone(task, task.interval_s)
            if not self._run_one(task):
                lost.add(task.database)
                self._postpone(task, min(RETRY_S, task.interval_s))
        with self._condition:
            if self._nudged or not self._tasks:
                return 0.0 if self._nudged else LONGEST_WAIT_S
            soonest = min(task.due for task in self._tasks.values())
        return min(max(0.0, soonest - self._clock.monotonic()), LONGEST_WAIT_S)

    def database_cause(self, alias: str) -> str | None:
        """For readiness: why this database is taken for lost, if it is."""
        lost = self._lost.get(alias)
        if lost is None:
            return None
        since, error = lost
        seconds = round(self._clock.monotonic() - since)
        if seconds < PATIENCE_S:
            return None
        return f"the database {alias!r} has not answered for {seconds} s: {error}"

    def database_loss(self, alias: str) -> str | None:
        """Why this database was lost when a task last wanted it, if it was."""
        lost = self._lost.get(alias)
        return lost[1] if lost is not None else None

    def busy(self) -> tuple[str, float] | None:
        """The database that a task is waiting for, and for how many seconds."""
        busy = self._busy
        return None if busy is None else (busy[0], self._clock.monotonic() - busy[1])

    def _postpone(self, task: _Task, seconds: float) -> None:
        with self._condition:
            task.due = self._clock.monotonic() + seconds

    def _run_one(self, task: _Task) -> bool:
        """Run a task; False when it found its database lost."""
        asked = True
        try:
            if task.database:
                self._busy = (task.database, self._clock.monotonic())
                drop_stale_connections()
            asked = task.run() is not NOT_ASKED
        except Exception as error:
            self._say_failed(task, error)
            if not task.database or not is_loss(error):
                return True
            since, _ = self._lost.get(task.database, (self._clock.monotonic(), ""))
            # Our words: the driver's text may carry the address and the user.
            self._lost[task.database] = (since, cause_of(error))
            # It answers where a table is missing: the other tasks may have theirs.
            return is_unprepared(error)
        finally:
            if task.database:
                drop_stale_connections()
            self._busy = None
        if task.failing:
            logger.info("task works again", extra={"task": task.name})
            task.failing = ""
        if task.database and asked:
            self._lost.pop(task.database, None)
        return True

    def _say_failed(self, task: _Task, error: Exception) -> None:
        kind = type(error).__name__
        if task.failing != kind:
            if is_loss(error):
                # Where it happened is of no use: the database is away.
                logger.warning(
                    "task failed; it will be tried again",
                    extra={"task": task.name, "database": task.database, "cause": cause_of(error)},
                )
            else:
                logger.warning(
                    "task failed; it will be tried again", extra={"task": task.name}, exc_info=error
                )
        task.failing = kind

    def _run(self) -> None:
        try:
            with as_the_prober():
                self._beat_until_stopped()
        finally:
            connections.close_all()

    def _beat_until_stopped(self) -> None:
        while not self._stopping:
            delay = self.beat()
            with self._condition:
                if not self._stopping and not self._nudged and delay > 0:
                    self._clock.wait(self._condition, delay)


def drop_stale_connections() -> None:
    """Django's `close_old_connections` for this thread, sparing those in a transaction."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


_heart = Heart()


def heart() -> Heart:
    """This process's heart."""
    return _heart


def watch(
    name: str,
    fingerprint: Callable[[], str],
    apply: Callable[[], None],
    *,
    seen: str | None = None,
    interval_s: float = WATCH_INTERVAL_S,
) -> None:
    _heart.watch(name, fingerprint, apply, seen=seen, interval_s=interval_s)


def every(
    name: str,
    interval_s: float,
    run: Callable[[], object],
    *,
    database: bool = True,
    alias: str = "default",
) -> None:
    _heart.every(name, interval_s, run, database=database, alias=alias)


def nudge(name: str | None = None) -> None:
    _heart.nudge(name)
