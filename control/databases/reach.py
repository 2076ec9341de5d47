"""Whether a database can be reached, and who may try: one that is away is asked by one thread.

Without this, each request of the admin would wait out the same timeout for a database that does
not answer, until every thread waited. While a database is away, whoever else wants it is
told so at once. Where the heart runs, it alone tries; elsewhere one caller at a time does, after
a pause.

`_lock` guards the state of one database and is never held while anybody connects.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from control.databases.causes import cause_of

RETRY_S = 1.0
_Made = TypeVar("_Made")
_prober = 0  # the identity of the one thread that tries, where there is one


class Connected(Protocol):
    """A driver's connection; its descriptor is that of the socket."""

    def fileno(self) -> int: ...


class Reach:
    """One database, as the threads of this process find it."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._cause = ""
        self._proven = False
        self._trying = False
        self._next_try = 0.0
        self._connections: weakref.WeakSet[Connected] = weakref.WeakSet()

    @property
    def cause(self) -> str:
        """Why the last try failed; "" while it can be reached, or nobody has tried."""
        return self._cause

    @property
    def proven(self) -> bool:
        """Whether the last try succeeded."""
        return self._proven

    def hold(self, connection: Connected) -> None:
        """Know of a connection in use, to end it when the database stops answering."""
        with self._lock:
            self._connections.add(connection)

    def lose(self, cause: str) -> int:
        """The database stopped answering: end what waits for it; how many connections that were.

        A connection whose other side neither answers nor closes would be waited on for ever.
        """
        with self._lock:
            self._cause, self._proven = cause, False
            self._next_try = self._monotonic() + RETRY_S
            connections = list(self._connections)
            self._connections.clear()
        return sum(cut(connection) for connection in connections)

    def attempt(self, connect: Callable[[], _Made], *, error: type[Exception], name: str) -> _Made:
        """Connect, or raise `error` at once while the database is away and others try."""
        refused = self._admit()
        if refused:
            raise error(f"the {name} database is away: {refused}")
        try:
            made = connect()
        except error as failed:
            self._failed(cause_of(failed))
            raise
        finally:
            self._trying = False
        with self._lock:
            self._cause, self._proven = "", True
        return made

    def _admit(self) -> str:
        with self._lock:
            if not self._cause:
                return ""
            if _prober:
                allowed = _prober == threading.get_ident()
            else:
                allowed = not self._trying and self._monotonic() >= self._next_try
            if allowed:
                self._trying = True
                return ""
            return self._cause

    def _failed(self, cause: str) -> None:
        with self._lock:
            if self._proven:
                # One refusal of a database that others are using: find out before saying so.
                self._proven = False
                return
            self._cause = cause
            self._next_try = self._monotonic() + RETRY_S


def cut(connection: Connected) -> bool:
    """End a connection at its socket, from any thread; False when it had ended by itself."""
    # Closing it here would free what another thread's call of the driver is using.
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as peer:
            peer.shutdown(socket.SHUT_RDWR)
    except Exception:  # it ended by itself: each driver says so with an error of its own
        return False
    return True


_reaches: dict[str, Reach] = {}
_reaches_lock = threading.Lock()


def reach_of(alias: str) -> Reach:
    """This process's view of a database."""
    with _reaches_lock:
        return _reaches.setdefault(alias, Reach())


@contextmanager
def as_the_prober() -> Iterator[None]:
    """Meanwhile this thread alone tries to reach databases that are away."""
    global _prober
    _prober = threading.get_ident()
    try:
        yield
    finally:
        _prober = 0
