"""Clients that send half a request, or none at all: no thread waits, and they are told why."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from collector_site.refusals import LOG_INTERVAL_S, Refusals, inert
from tests.servers.collector import CollectorServer
from tests.servers.rawclient import RawClient

Start = Callable[..., CollectorServer]

FEW_THREADS = {
    "COLLECTOR_THREADS": "4",
    "COLLECTOR_RESERVED_THREADS": "1",
    "COLLECTOR_READ_DEADLINE_S": "600",
}
PROBE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(body: bytes) -> bytes:
    return (
        b"POST /logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )


@pytest.mark.server
def test_half_a_pipelined_head_takes_no_thread(collector_server: Start) -> None:
    server = collector_server(environ=FEW_THREADS)
    half = PROBE[:25]
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.url)) for _ in range(20)]
        for client in clients:
            client.send(PROBE + half)
            assert client.answer()[0] == 200
        # More of them than threads wait for the rest of their next request.
        for _ in range(3):
            assert server.client().get("/healthz").status_code == 200
        assert server.client().post("/logs", json=[{"message": "m"}]).status_code == 202
        for client in clients:
            client.send(PROBE[25:])
            assert client.answer()[0] == 200
            # A body that nobody reads ends in the middle of the next head.
            client.send(post(b"[]").replace(b"/logs", b"/nowhere") + half)
            assert client.answer()[0] in (403, 404)
        assert server.client().get("/healthz").status_code == 200
        for client in clients:
            client.send(PROBE[25:])
            assert client.answer()[0] == 200


@pytest.mark.server
def test_a_half_head_behind_a_request_is_cut_at_the_deadline(collector_server: Start) -> None:
    server = collector_server(environ=FEW_THREADS | {"COLLECTOR_READ_DEADLINE_S": "0.5"})
    with RawClient(server.url) as client:
        client.send(PROBE + PROBE[:25])
        assert client.answer()[0] == 200
        status, headers, body = client.answer()
        assert status == 408
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(body)["request_id"] == headers["x-request-id"]
        assert client.ended()


@pytest.mark.server
@pytest.mark.parametrize(
    ("start", "status"),
    [(b"GET / HTTP/1.1\r\n", 431), (b"GET /", 414)],
    ids=["headers", "line"],
)
def test_a_head_without_an_end_takes_no_thread(
    collector_server: Start, start: bytes, status: int
) -> None:
    server = collector_server(environ=FEW_THREADS)
    line = b"X-Filler: %s\r\n" % (b"x" * 50) if status == 431 else b"x" * 64
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.url)) for _ in range(12)]
        for client in clients:
            client.send(start + line * (66_000 // len(line)))
        assert server.client().get("/healthz").status_code == 200
        for client in clients:
            found, headers, body = client.answer()
            assert found == status
            assert json.loads(body)["request_id"] == headers["x-request-id"]


HOST = b"Host: localhost\r\n"
REFUSED = {
    "no request": (b"hello\r\n\r\n", 400),
    "bytes of something else": (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
    "version": (b"GET / HTTP/9.9\r\n" + HOST + b"\r\n", 400),
    "two lengths": (
        b"POST /logs HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n[]",
        400,
    ),
    "length and coding": (
        b"POST /logs HTTP/1.1\r\n"
        + HOST
        + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "negative length": (b"POST /logs HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", 400),
    "header": (b"GET / HTTP/1.1\r\n" + HOST + b"no colon here\r\n\r\n", 400),
    "coding": (b"POST /logs HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: zip\r\n\r\n", 501),
    "long line": (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "long header": (b"GET / HTTP/1.1\r\n" + HOST + b"X-A: " + b"x" * 9000 + b"\r\n\r\n", 431),
    "many headers": (b"GET / HTTP/1.1\r\n" + HOST + b"X-A: b\r\n" * 200 + b"\r\n", 431),
}


@pytest.mark.server
def test_what_is_no_request_is_answered_as_a_problem(collector_server: Start) -> None:
    server = collector_server()
    for name, (sent, wanted) in REFUSED.items():
        with RawClient(server.url) as client:
            client.send(sent)
            status, headers, body = client.answer()
            assert status == wanted, name
            assert headers["content-type"] == "application/problem+json", name
            problem = json.loads(body)
            assert problem["status"] == wanted
            assert problem["code"]
            assert problem["request_id"] == headers["x-request-id"]
            assert len(problem["detail"]) < 400
            assert client.ended()
    server.stop()
    lines = [line for line in server.lines if "not well-formed" in line]
    assert len(lines) == 1
    assert json.loads(lines[0])["peer"] == "127.0.0.1"
    assert "Traceback" not in server.output


def test_refusals_of_one_interval_share_a_line(caplog: pytest.LogCaptureFixture) -> None:
    from gunicorn.http.errors import InvalidRequestLine

    now = [100.0]
    refusals = Refusals(monotonic=lambda: now[0])
    for _ in range(5):
        refusals.answer_to(InvalidRequestLine("x\x1b[2J" * 1000), None, ("10.0.0.9", 1))
    now[0] += LOG_INTERVAL_S
    refusals.answer_to(InvalidRequestLine("y"), None, ("10.0.0.9", 1))
    assert [vars(record)["more_since_last_line"] for record in caplog.records] == [0, 4]
    assert "\x1b" not in vars(caplog.records[0])["reason"]


def test_a_failure_of_ours_tells_the_client_nothing(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals()

    class Request:
        headers = (("X-REQUEST-ID", "mine"),)

    answer = refusals.answer_to(RuntimeError("inner secret"), Request(), ("10.0.0.9", 1))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ")
    assert json.loads(body)["request_id"] == "mine"
    assert b"secret" not in answer
    assert "inner secret" in caplog.text


def test_foreign_text_is_made_inert() -> None:
    assert inert("a\x1b\r\né", 100) == "a\\x1b\\r\\n\\xe9"
    assert len(inert("\U0001f600" * 500, 50)) == 50


def test_an_answer_to_a_client_that_went_is_no_error() -> None:
    from collector_site.clients import ClientWorker

    ours, theirs = socket.socketpair()
    theirs.close()
    ours.shutdown(socket.SHUT_WR)
    worker = ClientWorker.__new__(ClientWorker)
    worker._refusals = Refusals()
    with ours:
        worker.handle_error(None, ours, None, ValueError("x"))
