"""The connections of one sink: as many as it has workers, lent out, kept while they are sound.

Made on first use by the worker that needs it, so that a failure to connect carries its own cause
to the one who waits.  `_lock` guards `_idle`, `_lent` and `_generation`; connecting, closing and
every statement happen outside it.  `abort` cuts the sockets of lent connections from another
thread: the worker inside libpq gets an error and closes its connection itself; one that is still
connecting sees the generation change.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator

import psycopg
from psycopg import conninfo as pg_conninfo

from pipeline.errors import RetryableError
from sinks.postgresql.connecting import Interrupted, connect
from sinks.postgresql.sqlstate import as_sink_error

TCP_USER_TIMEOUT_MS = 30_000
IDLE_IN_TRANSACTION_MS = 30_000

Connection = psycopg.Connection[tuple[object, ...]]


class Connections:
    """Lends connections to `conninfo`, set up for writing batches."""

    def __init__(
        self,
        *,
        conninfo: str,
        application_name: str,
        connect_timeout_s: int = 10,
        statement_timeout_s: float = 60.0,
        max_idle: int = 16,
    ) -> None:
        self._conninfo = pg_conninfo.make_conninfo(
            conninfo,
            application_name=application_name[:63],
            connect_timeout=connect_timeout_s,
            tcp_user_timeout=TCP_USER_TIMEOUT_MS,
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
        )
        self._connect_timeout_s = connect_timeout_s
        self._statement_timeout_ms = int(statement_timeout_s * 1000)
        self._max_idle = max_idle
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._lent: set[Connection] = set()
        self._generation = 0

    @contextlib.contextmanager
    def lend(self) -> Iterator[Connection]:
        """A connection in autocommit, outside a transaction.

        It is kept only when the block left it so; after any error it is closed.
        """
        connection, generation = self._take()
        sound = False
        try:
            yield connection
            sound = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        finally:
            with self._lock:
                self._lent.discard(connection)
                keep = sound and generation == self._generation and len(self._idle) < self._max_idle
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()

    def _take(self) -> tuple[Connection, int]:
        with self._lock:
            generation = self._generation
            connection = self._idle.pop() if self._idle else None
            if connection is not None:
                self._lent.add(connection)
        if connection is not None and not _is_stale(connection):
            return connection, generation
        if connection is not None:
            # The server closed it while it lay idle, as a restart does: the others are gone too.
            with self._lock:
                self._lent.discard(connection)
                stale, self._idle = [connection, *self._idle], []
            for old in stale:
                old.close()
        return self._connect(generation), generation

    def _connect(self, generation: int) -> Connection:
        try:
            connection = connect(
                self._conninfo,
                timeout_s=self._connect_timeout_s,
                interrupted=lambda: self._generation != generation,
            )
        except Interrupted:
            raise RetryableError("the sink was closed or aborted while it connected") from None
        except psycopg.Error as error:
            raise as_sink_error(error, doing="connecting to PostgreSQL") from error
        # Lent from here on: an abort may cut what is said to set it up.
        with self._lock:
            unwanted = generation != self._generation
            if not unwanted:
                self._lent.add(connection)
        if unwanted:
            connection.close()
            raise RetryableError("the sink was closed or aborted while it connected")
        try:
            connection.execute(
                "SET synchronous_commit = on;"
                f"SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MS};"
                f"SET statement_timeout = {self._statement_timeout_ms};"
                "SET timezone = 'UTC'"
            )
        except psycopg.Error as error:
            with self._lock:
                self._lent.discard(connection)
            connection.close()
            raise as_sink_error(error, doing="setting up the PostgreSQL session") from error
        return connection

    def abort(self) -> None:
        """Cut every lent connection at its socket; later calls connect anew."""
        with self._lock:
            self._generation += 1
            lent, idle = list(self._lent), self._idle
            self._idle = []
        for connection in lent:
            _cut(connection)
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close what lies idle; what is lent is closed when it comes back."""
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def _is_stale(connection: Connection) -> bool:
    """Whether the server has hung up: an idle connection has nothing to read but a last word."""
    if connection.closed:
        return True
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as peer:
            peer.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _cut(connection: Connection) -> None:
    # Closing the connection here would free what the worker's libpq call is using.
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as peer:
            peer.shutdown(socket.SHUT_RDWR)
    except (OSError, psycopg.Error):
        pass  # it ended by itself
