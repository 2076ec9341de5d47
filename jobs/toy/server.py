"""The toy's server: plain threads on a loopback port.

    any path            answered as the behaviour says, with what was called and how often
    GET /journal        the last calls (?limit=), GET /counts in all, GET /tokens one by one
    GET /echo           the headers that came
    POST /control/down  be down for ?for_s= seconds; POST /control/up
    /faults/…           see `jobs.toy.faults`

Down means that connections are reset: nothing is answered, nothing is counted as done.  `_lock`
guards when it is down.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from jobs.toy.behaviour import DOWN, FAIL, HANG, OK, Behaviour
from jobs.toy.faults import FAULTS, answer, reset
from jobs.toy.journal import Journal

MAX_BODY = 16 * 1024 * 1024
_JSON = {"Content-Type": "application/json"}


class Toy:
    """Start it, and it listens at `url`; `port` 0 takes any that is free."""

    def __init__(
        self,
        *,
        behaviour: Behaviour | None = None,
        journal: Journal | None = None,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.behaviour = behaviour or Behaviour()
        self.journal = journal or Journal()
        self.stopping = threading.Event()
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._first_at: float | None = None
        self._down_until = 0.0
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.toy = self
        self._scheme = "https" if tls is not None else "http"
        if tls is not None:
            # Each connection's own thread makes its handshake, so that none holds the others up.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="toy"
        )

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.stopping.set()
        if self._thread.ident is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self.journal.close()

    def go_down(self, for_s: float) -> None:
        with self._lock:
            self._down_until = self._monotonic() + for_s

    def come_up(self) -> None:
        self.go_down(0.0)

    def is_down(self) -> bool:
        now = self._monotonic()
        with self._lock:
            if self._first_at is None:
                self._first_at = now
            return now < self._down_until or self.behaviour.is_down(now - self._first_at)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    toy: Toy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers that hang up are what it is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 60
    server: _Server

    def _serve(self) -> None:
        toy = self.server.toy
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        body = self._body()
        if self._answered_about(toy, parts.path, query):
            return
        token = self.headers.get("Idempotency-Key", "")
        began = time.time()
        if toy.is_down():
            toy.journal.ended(at=began, token=token, path=self.path, nth=0, outcome=DOWN)
            reset(self)
            return
        nth = toy.journal.began(token)
        fault = (
            FAULTS.get(parts.path.rpartition("/faults/")[2]) if "/faults/" in self.path else None
        )
        if fault is not None:
            named = parts.path.rpartition("/")[2]
            toy.journal.ended(at=began, token=token, path=self.path, nth=nth, outcome=named)
            fault(self, query, toy.stopping)
            return
        outcome = toy.behaviour.outcome(token, nth)
        if toy.stopping.wait(toy.behaviour.takes_s(token, nth)):
            reset(self)
            return
        # Noted before it is answered: what the caller knows of is in the journal.
        toy.journal.ended(at=began, token=token, path=self.path, nth=nth, outcome=outcome)
        if outcome == HANG:
            self.close_connection = True
            toy.stopping.wait()
        elif outcome == FAIL:
            headers = dict(_JSON)
            if toy.behaviour.retry_after_s is not None:
                headers["Retry-After"] = f"{toy.behaviour.retry_after_s:.0f}"
            self._say(503, {"error": "the toy fails as it was told to"}, headers)
        else:
            self._say(200, {OK: True, "path": self.path, "call": nth, "token": token, "got": body})

    def _answered_about(self, toy: Toy, path: str, query: dict[str, str]) -> bool:
        """Whether it was about the toy itself."""
        if path == "/journal":
            self._say(200, toy.journal.lines(limit=int(query.get("limit", "1000"))))
        elif path == "/counts":
            self._say(200, toy.journal.counts())
        elif path == "/tokens":
            self._say(200, toy.journal.tokens())
        elif path == "/echo":
            self._say(200, dict(self.headers))
        elif path == "/control/down":
            toy.go_down(float(query.get("for_s", "30")))
            self._say(200, {"down": True})
        elif path == "/control/up":
            toy.come_up()
            self._say(200, {"down": False})
        else:
            return False
        return True

    def _body(self) -> Any:
        size = min(int(self.headers.get("Content-Length") or 0), MAX_BODY)
        data = self.rfile.read(size)
        try:
            return json.loads(data) if data else None
        except ValueError:
            return data.decode("utf-8", "replace")

    def _say(self, status: int, value: Any, headers: dict[str, str] = _JSON) -> None:
        answer(self, status, json.dumps(value).encode(), headers)

    def log_message(self, format: str, *args: Any) -> None:
        """The journal is the log."""

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve
