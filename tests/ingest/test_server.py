"""The real server under hostile bodies and clients: each gets its answer, and nobody else pays."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.ingest.bodies import lines
from tests.servers.collector import CollectorServer

MIB = 1024 * 1024
JSON = {"Content-Type": "application/json"}
Servers = Callable[..., CollectorServer]


@contextmanager
def connection(server: CollectorServer) -> Iterator[socket.socket]:
    url = urlsplit(server.url)
    assert url.hostname is not None
    with closing(socket.create_connection((url.hostname, url.port or 80), timeout=60)) as sock:
        yield sock


def head(path: str = "/logs", **headers: object) -> bytes:
    fields = {"Host": "localhost", "Content-Type": "application/json", **headers}
    text = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{text}\r\n".encode()


def answer_on(sock: socket.socket) -> tuple[int, dict[str, Any]]:
    """The status and JSON of one answer; (0, {}) when the connection ends without one."""
    with sock.makefile("rb") as reader:
        status_line = reader.readline()
        if not status_line:
            return 0, {}
        fields = {}
        while (line := reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            fields[name.lower()] = value.strip()
        body = reader.read(int(fields.get("content-length", 0)))
    told = json.loads(body) if "json" in fields.get("content-type", "") else {}
    return int(status_line.split()[1]), told


def exchange(
    server: CollectorServer, *pieces: bytes, end: bool = False
) -> tuple[int, dict[str, Any]]:
    with connection(server) as sock:
        for piece in pieces:
            sock.sendall(piece)
        if end:
            sock.shutdown(socket.SHUT_WR)
        return answer_on(sock)


def accepted(server: CollectorServer) -> int:
    with server.client() as client:
        return sum(row["accepted"] for row in client.get("/stats").json()["ledger"])


def bomb() -> bytes:
    """10 GB of zeros in 10 MB of gzip."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(MIB)
    member = b"".join(packer.compress(zeros) for _ in range(100)) + packer.flush()
    return member * 100


def zeros(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield bytes(MIB)


@pytest.mark.timeout(240)
def test_bodies_that_lie_or_are_too_much(collector_server: Servers) -> None:
    server = collector_server()
    # A connection each: one that was answered with a refusal is closed, and not to be used again.
    with server.client(limits=httpx.Limits(max_keepalive_connections=0)) as client:
        _lengths(server)
        _chunks(server, client)
        _too_much(client)
        told = client.post("/logs", data={"a": "b"})
        assert (told.status_code, "--data-binary" in told.json()["detail"]) == (415, True)
        before = accepted(server)
        _disconnects(server)
        assert accepted(server) == before
        body = b"\n".join(lines(100_000))
        told = client.post("/logs", content=body, headers={"Content-Type": "application/x-ndjson"})
        assert (told.status_code, told.json()["accepted"]) == (202, 100_000)
        told = client.post("/logs?ack=stored", json={"message": "the last"})
        assert told.json()["ack"] == "stored"
        assert accepted(server) == before + 100_001
    assert server.stop() == 0


def _lengths(server: CollectorServer) -> None:
    record = b'{"message":"m"}'
    assert exchange(server, head(Content_Length=len(record)), record)[0] == 202
    status, told = exchange(server, head(Content_Length=500), record, end=True)
    assert (status, told["code"]) == (400, "incomplete_body")
    # What follows a length that is too short is not the next request, and costs the connection.
    assert exchange(server, head(Content_Length=len(record)), record + b"garbage\r\n\r\n")[0] == 202
    status, told = exchange(server, head(Content_Length=5), record)
    assert (status, told["errors"][0]["code"]) == (400, "malformed_json")
    for length in ("-1", "1e3", "5, 6", "x"):
        assert exchange(server, head(Content_Length=length), record)[0] == 400
    assert exchange(server, head())[1]["code"] == "empty_body"
    status, told = exchange(server, head(Content_Length=10**12))
    assert (status, told["limit"]) == (413, f"max_body_bytes={32 * MIB}")


def _chunks(server: CollectorServer, client: httpx.Client) -> None:
    body = b"\n".join(lines(1000))
    sent = client.post("/logs", content=(body[i : i + 5000] for i in range(0, len(body), 5000)),
                       headers=JSON)  # fmt: skip
    assert (sent.status_code, sent.json()["accepted"]) == (202, 1000)
    packed = gzip.compress(body)
    sent = client.post(
        "/logs", content=iter([packed]), headers={**JSON, "Content-Encoding": "gzip"}
    )
    assert sent.json()["accepted"] == 1000
    chunked = head(Transfer_Encoding="chunked")
    assert exchange(server, chunked, b"zz\r\n{}\r\n0\r\n\r\n")[0] == 400
    assert exchange(server, chunked, b"2\r\n{}XX0\r\n\r\n")[0] == 400
    assert exchange(server, chunked, b"50\r\n{}", end=True)[0] in (0, 400)
    assert exchange(server, chunked, b"0\r\n\r\n")[1]["code"] == "empty_body"
    assert client.post("/logs", content=zeros(40), headers=JSON).status_code == 413


def _too_much(client: httpx.Client) -> None:
    told = client.post("/logs", content=bytes(100 * MIB), headers=JSON)
    assert (told.status_code, told.json()["code"]) == (413, "body_too_large")
    for name, packed in (("gzip", bomb()), ("zstd", _zstd_bomb())):
        told = client.post("/logs", content=packed, headers={**JSON, "Content-Encoding": name})
        assert (told.status_code, told.json()["code"]) == (413, "inflated_too_large")
    assert peak_bytes(client.get("/stats").json()["pid"]) < 700 * MIB


def _zstd_bomb() -> bytes:
    import zstandard

    return zstandard.ZstdCompressor().compress(bytes(100 * MIB)) * 100


def peak_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        (line,) = (line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _disconnects(server: CollectorServer) -> None:
    for _ in range(5):
        with connection(server) as sock:
            sock.sendall(head(Content_Length=100_000) + b'{"message":"never whole"}\n')
        with connection(server) as sock:
            sock.sendall(head(Transfer_Encoding="chunked") + b"1000\r\n" + lines(1)[0])
        with connection(server) as sock:
            sock.sendall(head()[:20])


@pytest.mark.timeout(240)
def test_slow_clients_cost_themselves_only(collector_server: Servers) -> None:
    server = collector_server(
        environ={
            "COLLECTOR_THREADS": "6",
            "COLLECTOR_RESERVED_THREADS": "2",
            "COLLECTOR_READ_DEADLINE_S": "2",
        }
    )
    slow = head(Content_Length=1000) + b'{"message":'
    with ExitStack() as clients, server.client() as client:
        stalled = [clients.enter_context(connection(server)) for _ in range(20)]
        for sock in stalled:
            sock.sendall(slow)
        # While every thread that ingest may have waits for them:
        assert client.get("/healthz").status_code == 200
        statuses = [answer_on(sock)[0] for sock in stalled]
        assert set(statuses) <= {408, 429}
        assert 408 in statuses
        told = client.post("/logs?ack=stored", json={"message": "m"})
        assert (told.status_code, told.json()["ack"]) == (202, "stored")
        assert accepted(server) == 1
    assert server.stop() == 0
