"""The real server: it starts, answers, drains at any stop signal; no client silences it."""

from __future__ import annotations

import json
import os
import select
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing

import httpx
import psutil
import psycopg
import pytest

from tests.servers.collector import GENEROUS_S, CollectorServer
from tests.servers.installation import records_locked, stored_messages
from tests.servers.rawclient import RawClient

Start = Callable[..., CollectorServer]

pytestmark = pytest.mark.server

INT_AND_QUIT = [
    pytest.param(each, marks=pytest.mark.long) for each in (signal.SIGINT, signal.SIGQUIT)
]
# What a busy machine may need for a drain that takes a moment.
PATIENT = {"COLLECTOR_STOP_DEADLINE_S": str(GENEROUS_S)}
FEW_THREADS = {"COLLECTOR_THREADS": "4", "COLLECTOR_RESERVED_THREADS": "1"}


def batch(first: int, count: int) -> list[dict[str, str]]:
    return [{"message": f"m{number}", "service": "s"} for number in range(first, first + count)]


class Sender:
    """Sends batches from a thread until the server goes, and remembers what was acknowledged."""

    def __init__(self, server: CollectorServer, start: int) -> None:
        self.acknowledged: list[str] = []
        self.some = threading.Event()
        self._client = server.client()
        self._next = start
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            records = batch(self._next, 100)
            self._next += len(records)
            try:
                answer = self._client.post("/logs", json=records)
            except httpx.TransportError:
                return
            if answer.status_code == 202:
                self.acknowledged += [record["message"] for record in records]
                if len(self.acknowledged) > 2000:
                    self.some.set()
            elif answer.status_code == 503:
                return

    def join(self) -> list[str]:
        self._thread.join(GENEROUS_S)
        assert not self._thread.is_alive()
        return self.acknowledged


def answered(clients: list[RawClient], count: int) -> list[RawClient]:
    """`count` clients that have an answer, once that many have."""
    found: list[RawClient] = []
    while len(found) < count:
        waiting = [client for client in clients if client not in found]
        ready, _, _ = select.select(waiting, [], [], GENEROUS_S)
        assert ready, f"only {len(found)} of {count} were answered"
        found += ready
    return found


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("number", [signal.SIGTERM, *INT_AND_QUIT])
def test_a_stop_under_load_stores_exactly_what_was_acknowledged(
    collector_server: Start, number: int, twice: bool
) -> None:
    server = collector_server(environ=PATIENT)
    senders = [Sender(server, start) for start in (0, 10_000_000)]
    for sender in senders:
        assert sender.some.wait(GENEROUS_S)
    server.send(number)
    if twice:
        server.send(number)
    assert server.wait() == 0
    acknowledged = [message for sender in senders for message in sender.join()]
    stored = Counter(stored_messages(server))
    assert not Counter(acknowledged) - stored
    # A batch whose answer the stop cut off may be stored too, but nothing is stored twice.
    assert set(stored.values()) == {1}
    assert "ledger of log" in server.output
    assert "left behind" not in server.output


def test_a_stop_that_loses_acknowledged_records_does_not_exit_well(collector_server: Start) -> None:
    server = collector_server(environ={"COLLECTOR_STOP_DEADLINE_S": "6"})
    client = server.client()
    worker = psutil.Process(client.get("/healthz").json()["pid"])
    with records_locked(server):
        # No file takes a byte any more: what is acknowledged from memory is nowhere else.
        worker.rlimit(psutil.RLIMIT_FSIZE, (0, 0))
        assert client.post("/logs?ack=memory", json=batch(0, 300)).status_code == 202
        assert server.stop() == 1
    assert "300 acknowledged records are lost" in server.output


@pytest.mark.parametrize("again", [signal.SIGTERM, *INT_AND_QUIT])
def test_while_it_drains_it_answers_refuses_and_does_not_give_up(
    collector_server: Start, again: int
) -> None:
    server = collector_server(environ=PATIENT)
    client = server.client()
    with records_locked(server):
        assert client.post("/logs", json=batch(0, 300)).status_code == 202
        server.send(signal.SIGTERM)
        server.wait_for_line(lambda line: "Handling signal" in line)
        answer = client.post("/logs", json=batch(1000, 1))
        while answer.status_code == 202:  # the worker has not heard of it yet
            answer = client.post("/logs", json=batch(1000, 1))
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        # gunicorn by itself would now kill its worker in the middle of the drain.
        for _ in range(3):
            server.send(again)
        assert client.get("/healthz").status_code == 200
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert {"server", "sinks"} <= {one["check"] for one in ready.json()["causes"]}
    assert server.wait() == 0
    stored = Counter(stored_messages(server))
    assert stored.keys() >= {f"m{number}" for number in range(300)}
    assert "Quick shutdown" not in server.output
    assert "left behind" not in server.output


def test_the_ready_line_has_the_real_address_and_comes_once(collector_server: Start) -> None:
    server = collector_server()
    assert server.client().get("/healthz").json()["status"] == "ok"
    assert server.stop() == 0
    assert [line for line in server.lines if line.startswith("ready")] == [f"ready {server.url}"]


@pytest.mark.long
def test_a_worker_whose_arbiter_was_killed_drains_and_ends(collector_server: Start) -> None:
    server = collector_server()
    worker = psutil.Process(server.client().get("/healthz").json()["pid"])
    assert server.client().post("/logs", json=batch(0, 50)).status_code == 202
    server.send(signal.SIGKILL)
    psutil.wait_procs([worker], timeout=GENEROUS_S)
    assert not worker.is_running()
    assert exit_reasons(server) == ["its parent process is gone, drained"]
    assert len(stored_messages(server)) == 50


def exit_reasons(server: CollectorServer) -> list[str]:
    query = "SELECT exit_reason FROM control_process WHERE role = 'server'"
    url = server.environ.get("COLLECTOR_DATABASE_URL", "")
    if url:
        with psycopg.connect(url) as connection:
            return [row[0] for row in connection.execute(query)]
    with closing(sqlite3.connect(server.data_dir / "control.sqlite3")) as database:
        return [row[0] for row in database.execute(query)]


def test_a_stop_leaves_its_reason(collector_server: Start) -> None:
    server = collector_server()
    assert server.client().post("/logs", json=batch(0, 5)).status_code == 202
    assert server.stop(signal.SIGINT) == 0
    # The arbiter turns every stop signal into TERM for its workers.
    assert exit_reasons(server) == ["SIGTERM, drained"]


def test_mistakes_in_the_settings_keep_the_server_from_starting(collector_server: Start) -> None:
    server = collector_server(
        environ={"COLLECTOR_RESERVED_THREADS": "99"}, prepare=False, started=False
    ).spawn()
    assert server.wait() == 4
    assert "collector.E010" in server.output


def test_probes_answer_while_stalled_uploads_hold_every_other_thread(
    collector_server: Start,
) -> None:
    server = collector_server(environ=FEW_THREADS | {"COLLECTOR_READ_DEADLINE_S": "60"})
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.url)) for _ in range(16)]
        for client in clients:
            client.post("/logs", length=1000, body=b'[{"mess')
        # Three hold what ingest may use; the others are refused without a thread waiting for them.
        refused = answered(clients, 13)
        for client in refused:
            status, headers, body = client.answer()
            assert status == 429, body
            assert int(headers["retry-after"]) >= 1
        for path in ("/healthz", "/readyz", "/health"):
            assert server.client().get(path).status_code == 200
        assert server.client().get("/admin/login/").status_code == 200


def test_stalled_uploads_are_cut_at_the_deadline_and_told(collector_server: Start) -> None:
    server = collector_server(environ=FEW_THREADS | {"COLLECTOR_READ_DEADLINE_S": "0.5"})
    with RawClient(server.url) as length, RawClient(server.url) as chunked:
        length.post("/logs", length=1000, body=b'[{"mess')
        chunked.send(
            b"POST /logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n5\r\n[{"
        )
        for client in (length, chunked):
            status, headers, body = client.answer()
            assert status == 408
            assert headers["content-type"] == "application/problem+json"
            assert json.loads(body)["status"] == 408
            assert client.ended()
    answer = server.client().post("/logs", json=batch(0, 1))
    assert answer.status_code == 202


def test_slow_heads_take_no_thread_and_are_cut(collector_server: Start) -> None:
    server = collector_server(environ=FEW_THREADS | {"COLLECTOR_READ_DEADLINE_S": "1"})
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.url)) for _ in range(20)]
        silent = [stack.enter_context(RawClient(server.url)) for _ in range(5)]
        for client in clients:
            client.send(b"POST /logs HTTP/1.1\r\nHost: loc")
        assert server.client().post("/logs", json=batch(0, 1)).status_code == 202
        for client in clients:
            assert client.answer()[0] == 408
            assert client.ended()
        for client in silent:
            assert client.ended()


def test_a_request_in_many_small_pieces_is_answered(collector_server: Start) -> None:
    server = collector_server()
    body = json.dumps(batch(0, 1)).encode()
    head = (
        f"POST /logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    with RawClient(server.url) as client:
        for byte in head + body:
            client.send(bytes([byte]))
        assert client.answer()[0] == 202
        # and the connection goes on, with two requests in one piece
        client.send((head + body) * 2)
        assert client.answer()[0] == 202
        assert client.answer()[0] == 202
    server.stop()
    assert len(stored_messages(server)) == 3


def test_a_body_nobody_read_does_not_cost_the_connection(collector_server: Start) -> None:
    server = collector_server()
    with RawClient(server.url) as client:
        for size in (10, 100_000, 3_000_000):
            client.post("/nowhere", length=size, body=b"x" * size)
            status, headers, _ = client.answer()
            assert status in (403, 404)
            assert headers.get("connection") != "close"
        client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.answer()[0] == 200


def test_clients_that_vanish_leave_nothing_behind(collector_server: Start) -> None:
    server = collector_server(environ=FEW_THREADS)
    worker = psutil.Process(server.client().get("/healthz").json()["pid"])
    before = len(worker.net_connections("tcp"))
    for _ in range(10):
        for piece in (
            b"",
            b"POST /lo",
            b"POST /logs HTTP/1.1\r\nHost: l\r\nContent-Length: 9\r\n\r\n1",
        ):
            with RawClient(server.url) as client:
                client.send(piece)
    assert server.client().post("/logs", json=batch(0, 1)).status_code == 202
    assert server.stop() == 0
    assert before < 10
    assert len(stored_messages(server)) == 1


@pytest.mark.long
def test_stalled_uploads_do_not_use_up_the_time_of_the_drain(collector_server: Start) -> None:
    server = collector_server(environ=FEW_THREADS | {"COLLECTOR_READ_DEADLINE_S": "600"})
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.url)) for _ in range(3)]
        for client in clients:
            client.post("/logs", length=1000, body=b'[{"mess')
        assert server.client().post("/logs", json=batch(0, 1)).status_code in (202, 429)
        server.send(signal.SIGTERM)
        assert server.wait() == 0
        for client in clients:
            assert client.answer()[0] in (408, 503)
    assert "left behind" not in server.output


def test_names_that_are_not_ours_are_refused(collector_server: Start) -> None:
    """A page elsewhere can point its own name at 127.0.0.1; it must not reach ingest that way."""
    server = collector_server(environ={"COLLECTOR_ALLOWED_HOSTS": "logs.example"})
    client = server.client()
    for path in ("/logs", "/stats", "/metrics", "/admin/login/", "/static/x"):
        answer = client.get(path, headers={"Host": "evil.example:8000"})
        assert answer.status_code == 400, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "unknown_host"
        assert answer.json()["detail"] == (
            "this server does not answer to the name evil.example; "
            "add it to COLLECTOR_ALLOWED_HOSTS"
        )
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
    hostile = client.get("/logs", headers={b"Host": b"\x1b[31m" + b"\xe9" * 500})
    assert hostile.status_code == 400
    if "json" in hostile.headers["content-type"]:
        assert len(hostile.json()["detail"]) < 250
        assert "\x1b" not in hostile.json()["detail"]
    assert client.get("/healthz", headers={"Host": "10.0.0.7"}).status_code == 200
    # A name that was added does not take the local ones away.
    for host in ("logs.example", "localhost", "127.0.0.1"):
        assert client.get("/stats", headers={"Host": host}).status_code == 200
    assert server.stop() == 0
    assert len([line for line in server.lines if '"host":"evil.example"' in line]) == 1


def test_the_log_hears_of_so_many_foreign_names(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from django.http import HttpResponse
    from django.test import RequestFactory

    from collector_site.middleware import MAX_NAMES_LOGGED, KnownHostMiddleware

    monkeypatch.setattr(KnownHostMiddleware, "_logged", set())
    refuse = KnownHostMiddleware(lambda request: HttpResponse())
    for number in range(MAX_NAMES_LOGGED + 20):
        request = RequestFactory().get("/logs", headers={"Host": f"h{number}.example"})
        assert refuse(request).status_code == 400
    assert len(caplog.records) == MAX_NAMES_LOGGED
    assert "further names are not logged" in caplog.text


def test_a_killed_worker_is_replaced(collector_server: Start) -> None:
    server = collector_server()
    pid = server.client().get("/healthz").json()["pid"]
    os.kill(pid, signal.SIGKILL)
    server.wait_until(
        lambda: sum("Booting worker" in line for line in server.output.splitlines()) == 2
    )
    assert (
        server.client(transport=httpx.HTTPTransport(retries=20)).get("/healthz").json()["pid"]
        != pid
    )
    assert server.stop() == 0
    assert [line for line in server.lines if line.startswith("ready")] == [f"ready {server.url}"]
