"""The committer: one thread writes down what all workers of a runner have to say, in groups.

A worker hands in a write and waits until it is kept, so that a kill repeats at most what is in
flight.  While one commit is under way the next group gathers; what several say of one job is joined
to one write.  A database that is away is tried again until it answers or the committer is stopped;
what was not answered for sure may have been kept, and the fence then refuses its repetition.

`_condition` guards the queue and the ends; it is never held while the store is asked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from uuid import UUID

from django.db import connections

from control.databases.causes import cause_of, is_loss
from jobs.store.protocol import Store, Write
from pipeline.runtime.clock import Clock

logger = logging.getLogger(__name__)

MAX_GROUP = 256
RETRY_S = (0.1, 0.25, 0.5, 1.0)


class _Entry:
    """One write on its way.  Its worker sleeps on `done`, a lock that is let go once it is settled:
    a shared condition would wake every worker for each that is settled."""

    __slots__ = ("done", "error", "kept", "settled", "then", "write")

    def __init__(self, write: Write, then: Callable[[bool], None] | None) -> None:
        self.write = write
        self.then = then
        self.settled = False
        self.kept = False
        self.error: Exception | None = None
        self.done = threading.Lock()
        self.done.acquire()

    def settle(self) -> None:
        if not self.settled:
            self.settled = True
            self.done.release()
            if self.then is not None:
                self.then(self.kept)


class Committer:
    """`retire` is called by the thread as its last act, to give its connections back."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        retire: Callable[[], None] = connections.close_all,
    ) -> None:
        self._store = store
        self._clock = clock
        self._retire = retire
        self._condition = threading.Condition()
        self._queue: list[_Entry] = []
        self._stopping = False
        self._given_up = False
        self._thread: threading.Thread | None = None
        self.groups = 0
        self.written = 0
        self.failing = ""

    def start(self) -> None:
        with self._condition:
            if self._thread is not None:
                return
            self._stopping = self._given_up = False
            self._thread = threading.Thread(target=self._run, name="jobs-committer", daemon=True)
            self._thread.start()

    def stop(self, deadline_s: float) -> bool:
        """Write what was handed in, then end; True when all of it was written in time."""
        with self._condition:
            thread, self._stopping = self._thread, True
            self._condition.notify_all()
        if thread is None:
            return True
        thread.join(deadline_s)
        with self._condition:
            left = len(self._queue)
            self._given_up = True
            queue, self._queue = self._queue, []
            self._condition.notify_all()
            self._thread = None
        self._settle(queue, [])
        return not thread.is_alive() and not left

    def jobs(self) -> set[UUID]:
        """The jobs of which something is still to be written."""
        with self._condition:
            return {entry.write.id for entry in self._queue}

    def hand_in(
        self,
        write: Write,
        *,
        wait: bool = True,
        then: Callable[[bool], None] | None = None,
    ) -> bool:
        """Have it written.  True when it was kept; False when the claim is another's by now.

        Without `wait` it is written with whatever comes next, and the answer is True; `then` is
        told on the committer's thread whether it was kept.  Raises what the store raised for this
        write alone.
        """
        entry = _Entry(write, then)
        with self._condition:
            if self._thread is None or self._given_up:
                return False
            self._queue.append(entry)
            self._condition.notify_all()
        if not wait:
            return True
        with entry.done:
            pass
        if entry.error is not None:
            raise entry.error
        return entry.kept

    # --- the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                group = self._gather()
                if not group:
                    return
                self._write(group)
        finally:
            self._retire()

    def _gather(self) -> list[_Entry]:
        with self._condition:
            while not self._queue:
                if self._stopping:
                    return []
                self._clock.wait(self._condition, None)
            return self._queue[:MAX_GROUP]

    def _write(self, group: list[_Entry]) -> None:
        writes = [entry.write for entry in group]
        kept: Sequence[bool] = ()
        tries = 0
        while True:
            try:
                kept = self._store.write(writes)
            except Exception as error:
                if not is_loss(error):
                    logger.exception("what became of jobs could not be written together")
                    self._one_by_one(group)
                    return
                self._say(error)
                with self._condition:
                    if self._given_up:
                        return
                    self._clock.wait(self._condition, RETRY_S[min(tries, len(RETRY_S) - 1)])
                tries += 1
                continue
            break
        self._say(None)
        with self._condition:
            self.groups += 1
            self.written += len(group)
            del self._queue[: len(group)]
        self._settle(group, kept)

    def _one_by_one(self, group: list[_Entry]) -> None:
        """One write that cannot be made must not cost the others theirs."""
        for entry in group:
            try:
                entry.kept = self._store.write([entry.write])[0]
            except Exception as error:
                if is_loss(error):
                    break  # this one and those after it are tried again
                entry.error = error
                logger.exception(
                    "what became of a job cannot be written",
                    extra={"job_id": str(entry.write.id)},
                )
            entry.settle()
        with self._condition:
            self._queue = [entry for entry in self._queue if not entry.settled]

    def _settle(self, group: Sequence[_Entry], kept: Sequence[bool]) -> None:
        for number, entry in enumerate(group):
            entry.kept = number < len(kept) and kept[number]
            entry.settle()

    def _say(self, error: Exception | None) -> None:
        words = "" if error is None else cause_of(error)
        if words == self.failing:
            return
        self.failing = words
        if words:
            logger.warning(
                "what became of jobs cannot be written; it is tried again", extra={"cause": words}
            )
        else:
            logger.info("what became of jobs can be written again")
