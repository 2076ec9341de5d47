"""How the worker keeps its clients: gunicorn's threaded worker, made safe against slow ones.

Main thread: accepts, collects request heads without a thread, throws unread bodies away, cuts
overdue reads. Request threads parse and answer.

All sets and deques of connections belong to the main thread; request threads hand a connection
back through `method_queue`.
"""

from __future__ import annotations

import selectors
import socket
import time
from functools import partial
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from collector_site.connection import Connection, Head
from collector_site.parting import MAX_DRAIN_BYTES
from collector_site.refusals import Refusals

# A client that a cut did not move within this is cut off entirely.
CUT_GRACE_S = 2.0
LINGER_S = 2.0

_TO_DRAIN = object()
_sink = bytearray(1024 * 1024)


class ClientWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._active: set[Connection] = set()
        self._heads: set[Connection] = set()
        self._lingering: dict[Connection, float] = {}
        self._draining: dict[Connection, float] = {}
        self._read_deadline_s = 20.0
        self._refusals = Refusals()

    def accept(self, listener: socket.socket) -> None:
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return
        self.nr_conns += 1
        connection = Connection(self.cfg, client, address, listener.getsockname())
        try:
            connection.limit_sends(self._read_deadline_s)
        except OSError:
            self._drop(connection)
            return
        self._await_head(connection)

    def _await_head(self, connection: Connection) -> None:
        """Give the connection to a thread as soon as a whole request head is there."""
        connection.began = time.monotonic()
        self._go_on(connection, connection.read_head())

    def _on_head(self, connection: Connection, _: socket.socket) -> None:
        head = connection.read_head()
        if head is Head.PARTIAL:
            return
        self._heads.discard(connection)
        self._forget(connection)
        self._go_on(connection, head)

    def _go_on(self, connection: Connection, head: Head) -> None:
        if head is Head.WHOLE:
            self.enqueue_req(connection)
        elif head is Head.PARTIAL:
            self._heads.add(connection)
            self.poller.register(
                connection.sock, selectors.EVENT_READ, partial(self._on_head, connection)
            )
        elif head is Head.TOO_LARGE:
            connection.say(self._refusals.too_large(connection.head, connection.client))
            self._linger(connection)
        else:
            self._drop(connection)

    def on_client_socket_readable(self, conn: Connection, client: socket.socket) -> None:
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._await_head(conn)

    def enqueue_req(self, conn: Connection) -> None:
        self._active.add(conn)
        super().enqueue_req(conn)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Runs on the request's thread: what the server itself refuses, or could not answer."""
        try:
            client.sendall(self._refusals.answer_to(exc, req, addr))
        except OSError:
            pass  # nobody is left to tell

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> Any:
        """Runs on the request's thread, which must not wait for a body that nobody reads."""
        if not keepalive:
            return False
        left = conn.unread_body()
        if left == 0:
            return True
        if left is None or left > MAX_DRAIN_BYTES:
            return False
        conn.drain_left = left
        return _TO_DRAIN

    def finish_request(self, conn: Connection, fs: Any) -> None:
        self._active.discard(conn)
        result = False if fs.cancelled() or fs.exception() is not None else fs.result()
        if conn.cut_at:
            self._linger(conn)
        elif result is _TO_DRAIN:
            conn.sock.setblocking(False)
            self._draining[conn] = time.monotonic() + self._read_deadline_s
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_rest, conn))
        elif result:
            self._keep(conn)
        else:
            self._linger(conn)

    def _keep(self, conn: Connection) -> None:
        conn.sock.setblocking(False)
        head = conn.pipelined_head()
        if head is not None:
            self._go_on(conn, head)
            return
        conn.set_timeout()
        self.keepalived_conns.append(conn)
        self.poller.register(
            conn.sock, selectors.EVENT_READ, partial(self.on_client_socket_readable, conn)
        )

    def _on_rest(self, conn: Connection, _: socket.socket) -> None:
        """Throw away the rest of a body that the application did not want, without a thread."""
        try:
            count = conn.sock.recv_into(_sink, min(len(_sink), conn.drain_left))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            count = 0
        conn.drain_left -= count
        if count and conn.drain_left:
            return
        del self._draining[conn]
        self._forget(conn)
        if count:
            self._keep(conn)
        else:
            self._drop(conn)

    def _linger(self, conn: Connection) -> None:
        """Close once the client has: closing over bytes it still sends could lose our answer."""
        conn.sock.setblocking(False)
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(conn)
            return
        self._lingering[conn] = time.monotonic() + LINGER_S
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_farewell, conn))

    def _on_farewell(self, conn: Connection, _: socket.socket) -> None:
        try:
            if conn.sock.recv_into(_sink):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass  # reset: just as final
        del self._lingering[conn]
        self._forget(conn)
        self._drop(conn)

    def _forget(self, conn: Connection) -> None:
        try:
            self.poller.unregister(conn.sock)
        except (OSError, KeyError, ValueError):
            pass  # it was closed under the poller

    def _drop(self, conn: Connection) -> None:
        self.nr_conns -= 1
        conn.close()

    def _look_after_clients(self, now: float) -> None:
        """Cut what is past its deadline. Costs one pass over the open connections."""
        for conn in [c for c in self._heads if now - c.began > self._read_deadline_s]:
            self._heads.discard(conn)
            self._forget(conn)
            if conn.head:
                conn.say(self._refusals.timeout())
            self._drop(conn)
        for overdue in (self._lingering, self._draining):
            for conn in [c for c, due in overdue.items() if now > due]:
                del overdue[conn]
                self._forget(conn)
                self._drop(conn)
        for conn in self._active:
            if conn.cut_at:
                if now - conn.cut_at > CUT_GRACE_S:
                    conn.abort()
            elif conn.overdue(now, self._read_deadline_s):
                conn.cut(now)
