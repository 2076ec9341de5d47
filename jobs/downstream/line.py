"""A call's line: until when it may use the network, what it uses, and how it is cut from outside.

A Line belongs to the thread that makes the call; `cut` comes from any other.  `_changed` guards
what is in use, so that a cut never reaches a connection that has gone back to its pool: shutting a
socket down does not wait, and is done under it.  `Lines` knows which line each thread is on, as
pooled connections serve one call after another.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jobs.downstream.faults import CutError, OutOfTimeError
from pipeline.runtime.clock import Clock


class Line:
    def __init__(self, *, clock: Clock, until: float) -> None:
        self._clock = clock
        self.until = until
        self._changed = threading.Condition()
        self._in_use: list[socket.socket] = []
        self.is_cut = False
        self.sent = False
        """Whether a byte of the request has left."""

    def left_s(self) -> float:
        """Seconds that are left.  Raises OutOfTimeError, CutError."""
        if self.is_cut:
            raise CutError
        left = self.until - self._clock.monotonic()
        if left <= 0:
            raise OutOfTimeError
        return left

    def cut(self) -> None:
        """End it: whatever it waits for is over."""
        with self._changed:
            self.is_cut = True
            for sock in self._in_use:
                with contextlib.suppress(OSError):
                    # Not an SSLSocket's own, which would change it under the thread that reads.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
            self._changed.notify_all()

    def uses(self, sock: socket.socket) -> None:
        """Let a cut reach this one.  Raises CutError when it came before."""
        with self._changed:
            if self.is_cut:
                raise CutError
            self._in_use.append(sock)

    def done(self, sock: socket.socket) -> None:
        with self._changed:
            if sock in self._in_use:
                self._in_use.remove(sock)

    def hang_up(self) -> None:
        """The call is over: a cut reaches nothing any more."""
        with self._changed:
            self._in_use.clear()

    def wait_for(self, ready: Callable[[], bool]) -> None:
        """Wait for it, told by `wake`.  Raises OutOfTimeError, CutError."""
        with self._changed:
            while not ready():
                self._clock.wait(self._changed, self.left_s())

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


class Lines:
    """The line that each thread is on."""

    def __init__(self) -> None:
        self._here = threading.local()

    @property
    def current(self) -> Line:
        line: Line = self._here.line
        return line

    @contextmanager
    def on(self, line: Line) -> Iterator[None]:
        """This thread is on `line` while the block lasts."""
        self._here.line = line
        try:
            yield
        finally:
            self._here.line = None
            line.hang_up()
