"""Connections are kept and used again; a stale one costs nothing that was not sent."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

import pytest

from jobs.downstream import wire
from jobs.downstream.calls import Delayed, FailedCall
from tests.jobs.downstream.stand import LONG_S, spec

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: who=you\r\n\r\nok"


class OneByOne:
    """Answers one request a connection, then ends it: `fin`, `rst`, or `keep` it open.

    A connection of `mute` is read from and ended without an answer.
    """

    def __init__(self, *ends: str) -> None:
        self._ends = ends
        self.requests: list[bytes] = []
        self.ended = threading.Semaphore(0)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for end in self._ends:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                self._serve(connection, end)

    def _serve(self, connection: socket.socket, end: str) -> None:
        connection.settimeout(LONG_S)
        rounds = 1 if end in ("fin", "rst", "mute") else 1000
        with connection:
            for nth in range(rounds + (end == "later")):
                data = connection.recv(65536)
                if not data:
                    return
                self.requests.append(data)
                if end == "mute" or (end == "silent-second" and nth == 1):
                    return
                connection.sendall(OK)
            if end == "rst":
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.ended.release()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(LONG_S)


@pytest.fixture
def serve():
    servers = []

    def make(*ends: str) -> OneByOne:
        servers.append(OneByOne(*ends))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


def get(caller, url: str) -> str:
    return caller.call(spec(url), method="GET", body=None).body


def test_one_connection_serves_call_after_call_and_keeps_no_cookies(make_caller, serve):
    server = serve("keep")
    caller = make_caller()
    for _ in range(5):
        assert get(caller, server.url) == "ok"
    assert len(server.requests) == 5
    assert not any(b"ookie" in request for request in server.requests)
    caller.downstreams.close()


def test_one_that_the_other_end_closed_is_not_used_again(caller, serve):
    server = serve("fin", "fin", "rst", "fin")
    for _ in range(4):
        assert get(caller, server.url) == "ok"
        assert server.ended.acquire(timeout=LONG_S)
    assert len(server.requests) == 4


def test_a_request_of_which_nothing_was_sent_goes_over_another_one(caller, serve, monkeypatch):
    """As if it were closed between the look at it and the first byte."""
    monkeypatch.setattr(wire.Stream, "_is_readable", lambda self: False)
    server = serve("rst", "keep")
    assert get(caller, server.url) == "ok"
    assert server.ended.acquire(timeout=LONG_S)
    assert get(caller, server.url) == "ok"
    assert len(server.requests) == 2
    assert caller.state()["failures"] == 0
    caller.downstreams.close()


def test_a_request_that_was_sent_is_not_sent_again_behind_the_jobs_back(caller, serve):
    server = serve("silent-second", "keep")
    assert get(caller, server.url) == "ok"
    with pytest.raises(FailedCall, match="broke the call off"):
        get(caller, server.url)
    assert len(server.requests) == 2
    caller.downstreams.close()


def test_a_fresh_connection_that_is_closed_is_a_failed_call(caller, serve):
    server = serve("mute", "keep")
    with pytest.raises(FailedCall):
        get(caller, server.url)
    assert len(server.requests) == 1


def test_a_job_that_began_before_a_change_ends_with_what_it_began_with(make_caller, make_toy):
    first, second = make_toy(), make_toy()
    old, new = spec(first.url, max_concurrent=5), spec(second.url, rate_per_s=1.0, burst=1)
    known = {1: old}
    caller = make_caller(known=lambda: known)
    assert caller.call(old).status == 200
    known[1] = new
    assert caller.call(old).status == 200
    assert len(first.journal.lines(limit=10)) == 2
    # The limits are those of now, whoever calls.
    with pytest.raises(Delayed, match="rate limit"):
        caller.call(new, left_s=0.01)
    known[1] = old
    assert caller.call(new).status == 200
    assert len(second.journal.lines(limit=10)) == 1


def test_what_is_configured_no_more_is_forgotten(make_caller, toy):
    one, two = spec(toy.url, id=1, name="b"), spec(toy.url, id=2, name="a")
    known = {1: one, 2: two}
    caller = make_caller(known=lambda: known)
    caller.call(one)
    caller.call(two)
    assert [state["name"] for state in caller.downstreams.states()] == ["a", "b"]
    del known[2]
    assert [state["name"] for state in caller.downstreams.states()] == ["b"]
