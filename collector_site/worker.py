"""The server's worker: its life from the fork to the stop.

Main thread: one loop looks after the clients and tells the arbiter that the worker lives. At a
stop the services drain on a thread of their own while the loop goes on, so that probes answer and
refused clients are told to come back, until the drain is over or the deadline is.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

from gunicorn.errors import AppImportError

from collector_site import announce, parting
from collector_site.clients import ClientWorker
from control.processes import stopsignals

# Part of the stop deadline kept for what follows the drain: answers under way.
AFTER_DRAIN_S = 3.0
# How often a stop that takes long says what it waits for.
TELL_EVERY_S = 5.0
# How often the loop looks at clients' deadlines and tells the arbiter that it lives.
ROUND_EVERY_S = 0.1


class CollectorWorker(ClientWorker):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stop_cause = ""
        self._stopping_since: float | None = None
        self._hurried = False
        self._round_due = 0.0
        self._stop_deadline_s = float(self.cfg.graceful_timeout)

    def init_signals(self) -> None:
        super().init_signals()
        for number in stopsignals.STOP_SIGNALS:
            signal.signal(number, self.handle_exit)
            signal.siginterrupt(number, False)
        if announce.stop_was_asked():
            # It came between the fork and now, when nobody here was listening.
            self._stop_cause = "signal at the start"
            self.alive = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.alive:
            self._stop_cause = signal.Signals(sig).name
            self._stopping_since = time.monotonic()
        elif self._hurry_asked(sig):
            self._hurried = True
        super().handle_exit(sig, frame)

    handle_quit = handle_exit

    def _hurry_asked(self, sig: int) -> bool:
        """Whether this is a second Ctrl-C rather than the first one told twice."""
        since = self._stopping_since
        return (
            sig == signal.SIGINT
            and since is not None
            and (time.monotonic() - since > announce.SAME_PRESS_S)
        )

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.wsgi: Any = parting.saying(self.wsgi)
        from django.conf import settings

        from control.ports.readiness import register_readiness
        from control.processes import lifecycle
        from control.processes.garbage import settle_memory

        collector = settings.COLLECTOR
        fatal = [mistake for mistake in collector.mistakes if mistake.fatal]
        if fatal:
            lines = [f"{item.id}: {item.message} {item.hint}" for item in fatal]
            raise AppImportError("\n".join(["The settings have mistakes.", *lines]))
        self._read_deadline_s = collector.server.read_deadline_s
        register_readiness("server", self._unready)
        lifecycle.start("server")
        settle_memory()

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
        self._stop(time.monotonic())

    def _turn(self, timeout_s: float) -> None:
        self.set_accept_enabled(self.nr_conns < self.worker_connections)
        self.wait_for_and_dispatch_events(timeout_s)
        now = time.monotonic()
        # Several turns a request: what passes over all connections, or asks the system, less often.
        if now >= self._round_due:
            self._round_due = now + ROUND_EVERY_S
            self._round(now)

    def _round(self, now: float) -> None:
        self.notify()
        self.murder_keepalived()
        self._look_after_clients(now)
        if self.alive and not self.is_parent_alive():
            self._stop_cause = "its parent process is gone"
            self.alive = False

    def _stop(self, began: float) -> None:
        if self._stopping_since is None:  # no signal: max_requests, or its parent is gone
            self._stopping_since = began
            self._stop_cause = self._stop_cause or "it had served max_requests"
        drain_s = max(1.0, self._stop_deadline_s - AFTER_DRAIN_S)
        drained: list[bool] = []
        thread = threading.Thread(
            target=self._drain, args=(drain_s, drained), name="server-drain", daemon=True
        )
        thread.start()
        hurrying = False
        told = began
        while thread.is_alive() and time.monotonic() - began < drain_s + 1:
            self._turn(0.25)
            if self._hurried and not hurrying:
                hurrying = True
                self._hurry()
            if time.monotonic() - told >= TELL_EVERY_S:
                told = time.monotonic()
                self._tell_running(told - began)
        if thread.is_alive():
            self._tell_loss()  # nobody else will: what hangs there is left behind
        self.set_accept_enabled(False)
        for listener in self.sockets:
            listener.close()
        due = began + self._stop_deadline_s - 1.5
        self._finish(min(due, time.monotonic() + 1.0) if self._hurried else due)
        self._leave(complete=drained == [True])

    def _hurry(self) -> None:
        """A second Ctrl-C: end now, and leave what is held in the log."""
        from control.processes import lifecycle

        self.log.warning("asked twice: what is not delivered yet stays in the log")
        threading.Thread(target=lifecycle.hurry, name="server-hurry", daemon=True).start()

    def _tell_running(self, seconds: float) -> None:
        waiting = sum(1 for conn in self._active if conn.reading)
        self.log.warning(
            "still stopping after %.0f s: %d requests under way, %d of them still being sent",
            seconds,
            len(self._active),
            waiting,
        )

    def _drain(self, deadline_s: float, drained: list[bool]) -> None:
        from collector_site.farewell import write_exit_reason
        from control.processes import lifecycle
        from control.processes.identity import current_identity

        identity = current_identity()
        try:
            drained.append(lifecycle.stop(deadline_s))
        except Exception:
            self.log.exception("the services could not be stopped")
        self._tell_loss()
        if identity is not None:
            write_exit_reason(identity.id, self._stop_cause, complete=drained == [True])
        self.method_queue.defer(lambda: None)

    def _tell_loss(self) -> None:
        """The exit status says whether what was acknowledged is stored or safe in the log."""
        from collector_site.farewell import lost_records
        from control.ports.stats import stats

        lost = lost_records(stats())
        if lost:
            announce.loss()
            self.log.error(
                "%d acknowledged records are lost: neither stored nor in a log on the disk", lost
            )

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
        stopsignals.ignore()
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
