"""The server's worker: gunicorn's threaded worker, made safe against slow clients and at the stop.

Main thread: one loop accepts, collects request heads without a thread, throws unread bodies away,
cuts overdue reads, and tells the arbiter that the worker lives. Request threads parse and answer.
At a stop the services drain on a thread of their own while the loop goes on, so that probes answer
and refused clients are told to come back, until the drain is over or the deadline is.

All sets and deques of connections belong to the main thread; request threads hand a connection
back through `method_queue`.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import threading
import time
from functools import partial
from typing import Any

from gunicorn.errors import AppImportError
from gunicorn.workers.gthread import ThreadWorker

from collector_site import announce
from collector_site.connection import Connection

# Part of the stop deadline kept for what follows the drain: answers under way.
AFTER_DRAIN_S = 3.0
# A client that a cut did not move within this is cut off entirely.
CUT_GRACE_S = 2.0
LINGER_S = 2.0
# Enough for a refused batch of any usual size; beyond it the connection is not worth keeping.
MAX_DRAIN_BYTES = 64 * 1024 * 1024

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_TO_DRAIN = object()
_sink = bytearray(1024 * 1024)


class CollectorWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._active: set[Connection] = set()
        self._heads: set[Connection] = set()
        self._lingering: dict[Connection, float] = {}
        self._draining: dict[Connection, float] = {}
        self._read_deadline_s = 20.0
        self._stop_deadline_s = float(self.cfg.graceful_timeout)

    # -- start ---------------------------------------------------------------------------

    def init_signals(self) -> None:
        super().init_signals()
        for number in STOP_SIGNALS:
            signal.signal(number, self.handle_exit)
            signal.siginterrupt(number, False)
        if announce.stop_was_asked():
            # It came between the fork and now, when nobody here was listening.
            self.alive = False

    handle_quit = ThreadWorker.handle_exit

    def load_wsgi(self) -> None:
        super().load_wsgi()
        from django.conf import settings

        from control.ports.readiness import register_readiness
        from control.processes import lifecycle

        collector = settings.COLLECTOR
        fatal = [mistake for mistake in collector.mistakes if mistake.fatal]
        if fatal:
            lines = [f"{item.id}: {item.message} {item.hint}" for item in fatal]
            raise AppImportError("\n".join(["The settings have mistakes.", *lines]))
        self._read_deadline_s = collector.server.read_deadline_s
        register_readiness("server", self._unready)
        lifecycle.start("server")

    def _unready(self) -> str | None:
        return None if self.alive else "the server is shutting down"

    def run(self) -> None:
        self.poller.register(
            self.method_queue.fileno(), selectors.EVENT_READ, self.method_queue.run_callbacks
        )
        self.set_accept_enabled(True)
        announce.ready(self.sockets)
        while self.alive:
            self._turn(1.0)
            if not self.is_parent_alive():
                self.alive = False
        self._stop(time.monotonic())

    def _turn(self, timeout_s: float) -> None:
        self.notify()
        self.set_accept_enabled(self.nr_conns < self.worker_connections)
        self.wait_for_and_dispatch_events(timeout_s)
        self.murder_keepalived()
        self._look_after_clients(time.monotonic())

    # -- connections ---------------------------------------------------------------------

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
        arrived = connection.read_head()
        if arrived:
            self.enqueue_req(connection)
        elif arrived is None:
            self._drop(connection)
        else:
            self._heads.add(connection)
            self.poller.register(
                connection.sock, selectors.EVENT_READ, partial(self._on_head, connection)
            )

    def _on_head(self, connection: Connection, _: socket.socket) -> None:
        arrived = connection.read_head()
        if arrived is False:
            return
        self._heads.discard(connection)
        self._forget(connection)
        if arrived:
            self.enqueue_req(connection)
        else:
            self._drop(connection)

    def on_client_socket_readable(self, conn: Connection, client: socket.socket) -> None:
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._await_head(conn)

    def enqueue_req(self, conn: Connection) -> None:
        self._active.add(conn)
        super().enqueue_req(conn)

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
        if conn.parser.unreader.buf.getvalue():
            # The next request was pipelined: its bytes no longer make the socket readable.
            conn.next_request(time.monotonic())
            self.enqueue_req(conn)
            return
        conn.sock.setblocking(False)
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
                conn.say_timeout()
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

    # -- stop ----------------------------------------------------------------------------

    def _stop(self, began: float) -> None:
        drain_s = max(1.0, self._stop_deadline_s - AFTER_DRAIN_S)
        drained: list[bool] = []
        thread = threading.Thread(
            target=self._drain, args=(drain_s, drained), name="server-drain", daemon=True
        )
        thread.start()
        while thread.is_alive() and time.monotonic() - began < drain_s + 1:
            self._turn(0.25)
        self.set_accept_enabled(False)
        for listener in self.sockets:
            listener.close()
        self._finish(began + self._stop_deadline_s - 1.5)
        self._leave(complete=drained == [True])

    def _drain(self, deadline_s: float, drained: list[bool]) -> None:
        from control.processes import lifecycle

        try:
            drained.append(lifecycle.stop(deadline_s))
        except Exception:
            self.log.exception("the services could not be stopped")
        self.method_queue.defer(lambda: None)

    def _finish(self, due: float) -> None:
        """Let requests under way be answered; cut those that still wait for their client."""
        while (self._active or self._lingering) and (now := time.monotonic()) < due:
            for conn in self._active:
                if conn.reading and not conn.cut_at:
                    conn.cut(now)
            self.notify()
            self.wait_for_and_dispatch_events(0.1)
            self.murder_keepalived()
            self._look_after_clients(time.monotonic())
        for conn in self._active:
            conn.abort()
        for conn in (*self._heads, *self._lingering, *self._draining):
            conn.close()
        self.murder_keepalived(force=True)

    def _leave(self, *, complete: bool) -> None:
        """End, without waiting for a thread that hangs: a normal exit would wait for ever."""
        if not complete:
            self.log.error("the services were not all stopped before the deadline")
        self.tpool.shutdown(wait=False, cancel_futures=True)
        due = time.monotonic() + 1.0
        hanging = []
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and not thread.daemon:
                thread.join(max(0.0, due - time.monotonic()))
                if thread.is_alive():
                    hanging.append(thread.name)
        self.poller.close()
        self.method_queue.close()
        if hanging:
            self.log.error("left behind while stopping: threads %s", ", ".join(hanging))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)
