"""Idempotency keys at the real server: races between its processes, a control database that hangs
or is killed beside it, a process that dies before it could record what it kept."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.servers.collector import CollectorServer
from tests.servers.installation import stored_messages
from tests.servers.proxy import Proxy, postgres_proxy

Servers = Callable[..., CollectorServer]
RETRIED = frozenset({409, 429, 503})
GENEROUS_S = 180.0


def post(client: httpx.Client, key: str, message: str, ack: str = "wal") -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return client.post(f"/logs?ack={ack}", json={"message": message}, headers=headers)


def post_until_taken(client: httpx.Client, key: str, message: str, ack: str = "wal") -> Any:
    """As a client that honours refusals does; the answer that is none."""
    due = time.monotonic() + GENEROUS_S
    while True:
        try:
            response = post(client, key, message, ack)
        except httpx.TransportError:
            response = None  # the answer was lost
        if response is not None and response.status_code not in RETRIED:
            return response
        assert time.monotonic() < due, "the request was refused for too long"
        threading.Event().wait(0.05)


def settle(server: CollectorServer) -> None:
    """Until what was taken in is stored."""
    with server.client() as client:
        told = post_until_taken(client, "", "the last", "stored")
        assert told.json()["ack"] == "stored"


@contextmanager
def many(server: CollectorServer, count: int) -> Iterator[list[httpx.Client]]:
    clients = [server.client() for _ in range(count)]
    yield clients
    for client in clients:
        client.close()


@pytest.mark.timeout(240)
def test_the_same_key_fifty_times_at_once_is_stored_once(collector_server: Servers) -> None:
    server = collector_server(environ={"COLLECTOR_WORKERS": "2"})
    with many(server, 50) as clients, ThreadPoolExecutor(50) as pool:
        for number in range(3):
            gate = threading.Barrier(50)

            def send(client: httpx.Client, gate: threading.Barrier = gate, n: int = number) -> Any:
                gate.wait(GENEROUS_S)
                return post_until_taken(client, f"payment-{n}", f"paid {n}")

            answers = list(pool.map(send, clients))
            assert {answer.status_code for answer in answers} == {202}
            assert len({answer.content for answer in answers}) == 1
            replayed = [answer.headers.get("Idempotency-Replayed") for answer in answers]
            assert Counter(replayed) == {None: 1, "true": 49}
        assert post(clients[0], "payment-0", "another").status_code == 422
    assert server.stop() == 0
    assert sorted(stored_messages(server)) == ["paid 0", "paid 1", "paid 2"]


@contextmanager
def behind_a_proxy(
    collector_server: Servers, dsn: str, **environ: str
) -> Iterator[tuple[CollectorServer, Proxy]]:
    """A server whose control database is behind a proxy, and whose records are not."""
    with postgres_proxy(dsn) as (proxied, proxy):
        parts = conninfo_to_dict(proxied)
        url = "postgresql://{user}@{host}:{port}/{dbname}?sslmode=disable".format(**parts)
        server = collector_server(
            environ={
                "COLLECTOR_DATABASE_URL": url,
                "COLLECTOR_RECORDS_DATABASE_URL": "sqlite:///",
                **environ,
            }
        )
        yield server, proxy
        proxy.heal()


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_hanging_control_database_costs_only_requests_with_a_key(
    collector_server: Servers, postgres_dsn: str
) -> None:
    with behind_a_proxy(
        collector_server, postgres_dsn, COLLECTOR_THREADS="12", COLLECTOR_RESERVED_THREADS="2"
    ) as (server, proxy):
        with many(server, 40) as clients, ThreadPoolExecutor(40) as pool:
            assert post(clients[0], "before", "before").status_code == 202
            proxy.stall()
            keyed = [
                pool.submit(post, client, f"flood-{n}", "flood") for n, client in enumerate(clients)
            ]
            with server.client() as client:
                for n in range(20):
                    assert post(client, "", f"unkeyed {n}").status_code == 202
            refused = [future.result() for future in keyed]
            assert {answer.status_code for answer in refused} <= {429, 503}
            assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
            codes = {answer.json()["code"] for answer in refused}
            assert "idempotency_unavailable" in codes
            proxy.heal()
            again = post_until_taken(clients[0], "flood-0", "flood")
            assert (again.status_code, again.json()["accepted"]) == (202, 1)
            assert post_until_taken(clients[1], "before", "before").headers["Idempotency-Replayed"]
        settle(server)
        assert server.stop() == 0
        found = Counter(_messages(server))
        assert found["flood"] == found["before"] == 1
        assert sum(found[f"unkeyed {n}"] for n in range(20)) == 20


def _messages(server: CollectorServer) -> list[str]:
    """The records are in a file here, though the control database is not."""
    server.environ.pop("COLLECTOR_DATABASE_URL")
    return stored_messages(server)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_what_a_killed_process_kept_but_could_not_record_is_not_kept_again(
    collector_server: Servers, postgres_dsn: str
) -> None:
    with behind_a_proxy(collector_server, postgres_dsn) as (server, proxy):
        with server.client() as client:
            assert post(client, "warm", "warm").status_code == 202
            # Its claim is made; that it is done never reaches the database.
            held = proxy.hold_request(b'UPDATE "control_idempotencykey" SET "state"')
            with ThreadPoolExecutor(1) as pool:
                answering = pool.submit(post, client, "held", "kept")
                assert held.wait(GENEROUS_S)
                proxy.stall()
                answer = answering.result(GENEROUS_S)
            assert (answer.status_code, answer.json()["ack"]) == (202, "wal")
            assert post(client, "held", "kept").status_code == 503
        server.send(signal.SIGKILL)
        server.wait()
        held.cut()
        proxy.heal()
        again = collector_server(
            data_dir=server.data_dir,
            prepare=False,
            environ={
                name: server.environ[name]
                for name in ("COLLECTOR_DATABASE_URL", "COLLECTOR_RECORDS_DATABASE_URL")
            },
        )
        with again.client() as client:
            answer = post_until_taken(client, "held", "kept")
            assert answer.headers["Idempotency-Replayed"] == "true"
            assert post(client, "held", "other").status_code == 422
        settle(again)
        assert again.stop() == 0
        found = Counter(_messages(again))
        assert found["kept"] == found["warm"] == 1
