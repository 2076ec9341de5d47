"""Group commit: whoever needs something on disk first carries out what all have queued by then.

That thread leads; those who queued meanwhile follow and wait, and the first of them leads next.
So one write and one sync serve many requests, and a lone request needs no other thread.
`_changed` guards the queue and who leads; the work itself is done without it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar, cast


class Entry:
    """Something to be carried out; `error` says why it was not."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = False
        self.error: BaseException | None = None


_Entry = TypeVar("_Entry", bound=Entry)


class GroupCommit(Generic[_Entry]):
    """`carry_out(entries)` is called by one thread at a time, in the order of the queue.

    It sets the `error` of those entries that it could not carry out, and marks none as done.
    `unwanted()` is called when entries are queued and nobody is there to carry them out.
    """

    def __init__(
        self,
        carry_out: Callable[[list[_Entry]], None],
        *,
        unwanted: Callable[[], None] = lambda: None,
    ) -> None:
        self._carry_out = carry_out
        self._unwanted = unwanted
        self._changed = threading.Condition()
        self._queue: list[_Entry | Entry] = []
        self._leading = False
        self._following = 0

    def leave(self, entry: _Entry) -> None:
        """Queue an entry for whoever comes next."""
        with self._changed:
            self._queue.append(entry)
            unwanted = not self._leading
        if unwanted:
            self._unwanted()

    def do(self, entry: _Entry) -> None:
        """Queue an entry and return once it is done; look at its `error` then."""
        with self._changed:
            self._queue.append(entry)
        self._wait(entry)

    def _wait(self, entry: Entry) -> None:
        """Return once a queued entry is done, leading if nobody does."""
        while True:
            with self._changed:
                self._following += 1
                while not entry.done and self._leading:
                    self._changed.wait()
                self._following -= 1
                if entry.done:
                    return
                entries = self._take()
            self._lead(entries)

    def flush(self) -> None:
        """Return once everything that is queued by now is done."""
        mark = Entry()
        with self._changed:
            self._queue.append(mark)
        self._wait(mark)

    def run(self) -> None:
        """Carry out what is queued, unless somebody is at it already."""
        with self._changed:
            if self._leading or not self._queue:
                return
            entries = self._take()
        self._lead(entries)

    def alone(self, work: Callable[[], None]) -> None:
        """Do `work` while nothing is carried out."""
        with self._changed:
            self._following += 1
            while self._leading:
                self._changed.wait()
            self._following -= 1
            self._leading = True
        try:
            work()
        finally:
            self._end([])

    def _take(self) -> list[_Entry | Entry]:
        self._leading = True
        entries, self._queue = self._queue, []
        return entries

    def _lead(self, entries: list[_Entry | Entry]) -> None:
        try:
            wanted = [entry for entry in entries if type(entry) is not Entry]
            if wanted:
                self._carry_out(cast("list[_Entry]", wanted))
        except BaseException as error:
            for entry in entries:
                entry.error = entry.error or error
            raise
        finally:
            self._end(entries)

    def _end(self, entries: list[_Entry | Entry]) -> None:
        with self._changed:
            for entry in entries:
                entry.done = True
            self._leading = False
            if self._following:
                self._changed.notify_all()
            unwanted = bool(self._queue) and not self._following
        if unwanted:
            self._unwanted()
