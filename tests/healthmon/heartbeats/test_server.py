"""Pings at the real server: with its control database, without it, and killed in between."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from healthmon.heartbeats.secret import digest_of
from tests.servers.collector import CollectorServer
from tests.servers.proxy import postgres_proxy

SECRET = "6f1f1b9e-3c1c-4b43-8a53-5d2f6f0f7c11"
PATH = f"/ping/{SECRET}"
UNKNOWN = "/ping/6f1f1b9e-3c1c-4b43-8a53-5d2f6f0f7c12"
ServerFactory = Callable[..., CollectorServer]

pytestmark = pytest.mark.server


@contextmanager
def database(server: CollectorServer) -> Iterator[Callable[[str], list[tuple[object, ...]]]]:
    """Statements beside the server, in its control database."""
    url = server.environ.get("COLLECTOR_DATABASE_URL", "")
    if url:
        with psycopg.connect(url, autocommit=True) as connection:

            def ask(sql: str) -> list[tuple[object, ...]]:
                cursor = connection.execute(sql)  # type: ignore[call-overload]
                return cursor.fetchall() if cursor.description else []

            yield ask
        return
    file = server.data_dir / "control.sqlite3"
    with closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as opened:
        yield lambda sql: opened.execute(sql).fetchall()


def add_target(server: CollectorServer) -> None:
    """A heartbeat target with the address of these tests."""
    columns = {
        "name": "'backup'", "kind": "'heartbeat'", "address": "'checkout'", "options": "'{}'",
        "secrets": "'{}'", "interval_s": "60", "timeout_s": "10", "retry_interval_s": "5",
        "failure_threshold": "3", "success_threshold": "2", "paused": "false",
        "severity": "'critical'", "notes": "''", "service": "''", "slo_days": "30",
        "public": "true", "badge": "false", "ping_digest": f"'{digest_of(SECRET)}'",
        "ping_hint": "'7c11'", "created_at": "CURRENT_TIMESTAMP",
        "updated_at": "CURRENT_TIMESTAMP",
    }  # fmt: skip
    with database(server) as ask:
        ask(
            f"INSERT INTO healthmon_target ({', '.join(columns)}) "
            f"VALUES ({', '.join(columns.values())})"
        )


def known(server: CollectorServer) -> None:
    """Wait until the server has read the address and kept its copy."""
    copy = server.data_dir / "snapshot" / "heartbeats.json"
    digest = digest_of(SECRET)
    server.wait_until(lambda: copy.exists() and digest in copy.read_text())


def pings(server: CollectorServer) -> list[tuple[object, ...]]:
    with database(server) as ask:
        return ask("SELECT kind, exit_code, body FROM healthmon_ping ORDER BY record_id")


def test_pings_and_services_reach_their_target(collector_server: ServerFactory) -> None:
    server = collector_server()
    add_target(server)
    # A connection each: one whose body was not read to its end is closed after the answer.
    client = server.client(limits=httpx.Limits(max_keepalive_connections=0))
    known(server)
    assert client.get(f"{PATH}/start").text == "OK"
    answer = client.post(f"{PATH}/3", content=b"disk full\n")
    assert (answer.status_code, answer.headers["Content-Length"]) == (200, "2")
    assert client.head(PATH).status_code == 200
    # A body whose length nobody tells.
    assert client.post(PATH, content=iter([b"a", b"b" * 20_000])).status_code == 200
    assert client.get(UNKNOWN).status_code == 404
    told = {"service": "checkout", "status": "degraded", "latency_ms": 3}
    assert client.post("/health", json=told).status_code == 202
    server.wait_until(lambda: len(pings(server)) == 5)
    assert pings(server) == [
        ("start", None, ""),
        ("fail", 3, "disk full\n"),
        ("success", None, ""),
        ("success", None, ("a" + "b" * 20_000)[:10_000]),
        ("degraded", None, ""),
    ]
    with database(server) as ask:
        ((status, code),) = ask("SELECT last_status, last_exit_code FROM healthmon_heartbeat")
    assert (status, code) == ("degraded", None)
    server.stop()
    assert SECRET not in server.output


def test_killed_before_a_ping_was_kept(collector_server: ServerFactory) -> None:
    """What was answered is in the log's files, and the next process stores it."""
    server = collector_server()
    add_target(server)
    known(server)
    with database(server) as ask:
        if server.environ.get("COLLECTOR_DATABASE_URL"):
            ask("BEGIN")
            ask("LOCK TABLE healthmon_heartbeat IN ACCESS EXCLUSIVE MODE")
        else:
            ask("BEGIN IMMEDIATE")
        assert server.client().get(f"{PATH}/7").status_code == 200
        server.send(signal.SIGKILL)
        worker_gone(server)
        ask("ROLLBACK")
    assert pings(server) == []
    environ = {
        name: server.environ[name] for name in ("COLLECTOR_DATABASE_URL",) if name in server.environ
    }
    again = collector_server(data_dir=server.data_dir, prepare=False, environ=environ)
    again.wait_until(lambda: len(pings(again)) == 1)
    assert pings(again) == [("fail", 7, "")]


def worker_gone(server: CollectorServer) -> None:
    """The whole session is the server's own: kill its workers as well, as a power cut would."""
    try:
        os.killpg(server.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    server.wait()


@pytest.mark.long
@pytest.mark.once
def test_pings_go_on_without_the_control_database(
    collector_server: ServerFactory, postgres_dsn: str
) -> None:
    with postgres_proxy(postgres_dsn) as (dsn, proxy):
        parts = conninfo_to_dict(dsn)
        url = f"postgresql://{parts['user']}@127.0.0.1:{proxy.port}/{parts['dbname']}"
        server = collector_server(environ={"COLLECTOR_DATABASE_URL": url})
        add_target(server)
        client = server.client()
        known(server)
        assert client.get(f"{PATH}/start").status_code == 200
        server.wait_until(lambda: len(pings(server)) == 1)
        proxy.cut()
        assert client.get(f"{PATH}/0").status_code == 200
        # Of an address that may have been added meanwhile nobody knows.
        server.wait_until(lambda: client.get(UNKNOWN).status_code == 503)
        assert client.get(f"{PATH}/9").status_code == 200
        proxy.heal()
        server.wait_until(lambda: len(pings(server)) == 3)
        assert [row[:2] for row in pings(server)] == [
            ("start", None),
            ("success", 0),
            ("fail", 9),
        ]
