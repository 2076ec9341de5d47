"""The control plane between real servers and real commands: drains, kills, revoked keys."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import httpx
import psycopg
import pytest

from tests.servers.collector import ROOT, CollectorServer

ServerFactory = Callable[..., CollectorServer]
DEADLINE_S = 180.0


def manage(server: CollectorServer, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *args],
        cwd=ROOT,
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def told(server: CollectorServer, *args: str) -> Any:
    done = manage(server, *args, "--json")
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def eventually(true: Callable[[], bool], what: str) -> None:
    due = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < due, f"{what} did not come to be"
        time.sleep(0.1)


def send(server: CollectorServer, count: int, **headers: str) -> int:
    body = [{"message": f"m{n}"} for n in range(count)]
    return httpx.post(f"{server.url}/logs", json=body, headers=headers, timeout=60).status_code


def test_a_drain_settles_every_process_and_prints_their_ledgers(
    collector_server: ServerFactory,
) -> None:
    first = collector_server()
    second = collector_server(data_dir=first.data_dir, environ=shared(first), prepare=False)
    for server in (first, second):
        assert send(server, 500) == 202
    eventually(lambda: len(with_ledger(first)) == 2, "two processes")
    before = told(first, "ledger", "--live")
    assert all(process["fresh"] for process in before["processes"])
    assert sum(accepted(process) for process in before["processes"]) == 1_000
    done = manage(first, "drain", "--timeout", "20", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["ok"], document["failures"]) == (0, True, [])
    rows = [row for process in document["processes"] for row in process["ledger"]]
    assert [row["in_flight"] for row in rows] == [0, 0]
    assert sum(row["stored"] for row in rows) == 1_000
    for server in (first, second):
        assert send(server, 1) == 503
        assert get(server, "/healthz").status_code == 200
        assert get(server, "/readyz").status_code == 503


@pytest.mark.long
def test_a_killed_process_is_shown_as_dead_and_its_number_is_used_again(
    collector_server: ServerFactory,
) -> None:
    first = collector_server(environ={"COLLECTOR_WORKERS": "1"})
    second = collector_server(data_dir=first.data_dir, environ=shared(first), prepare=False)
    assert (send(first, 1), send(second, 1)) == (202, 202)
    eventually(lambda: len(with_ledger(first)) == 2, "two processes")
    victim = get(first, "/healthz").json()["pid"]
    numbers = in_use(first)
    assert len(numbers) == 2
    os.killpg(first.pid, signal.SIGKILL)
    dead = f"SELECT exit_reason FROM control_process WHERE pid = {victim} AND exit_reason <> ''"
    eventually(lambda: bool(rows(first, dead)), "the death")
    assert "its process is gone" in rows(first, dead)[0][0]
    third = collector_server(data_dir=first.data_dir, environ=shared(first), prepare=False)
    assert send(third, 1) == 202
    assert in_use(third) == numbers


@pytest.mark.long
def test_a_key_revoked_from_a_shell_is_refused_within_two_seconds(
    collector_server: ServerFactory,
) -> None:
    server = collector_server()
    assert send(server, 1) == 202
    made = told(server, "apikey", "create", "app")
    token = made["token"]
    eventually(lambda: send(server, 1) == 401, "the need of a key")
    assert send(server, 1, **{"X-API-Key": token}) == 202
    told(server, "apikey", "revoke", made["prefix"])
    eventually(lambda: send(server, 1, **{"X-API-Key": token}) == 401, "the refusal")


def get(server: CollectorServer, path: str) -> httpx.Response:
    return httpx.get(f"{server.url}{path}", timeout=60)


def rows(server: CollectorServer, query: str) -> list[tuple[Any, ...]]:
    """Read beside the server, cheaper than a command."""
    url = server.environ.get("COLLECTOR_DATABASE_URL")
    if url:
        with psycopg.connect(url) as connection:
            return connection.execute(query.encode()).fetchall()
    with closing(sqlite3.connect(server.data_dir / "control.sqlite3")) as file:
        return file.execute(query).fetchall()


def with_ledger(server: CollectorServer) -> list[tuple[Any, ...]]:
    processes = rows(server, "SELECT pid, CAST(ledger AS text) FROM control_process")
    return [(pid, ledger) for pid, ledger in processes if "accepted" in ledger]


def shared(server: CollectorServer) -> dict[str, str]:
    """Of one installation with `server`."""
    url = server.environ.get("COLLECTOR_DATABASE_URL")
    return {"COLLECTOR_DATABASE_URL": url} if url else {}


def accepted(process: dict[str, Any]) -> int:
    return sum(int(row["accepted"]) for row in process["ledger"])


def in_use(server: CollectorServer) -> list[str]:
    return sorted(path.name for path in (server.data_dir / "nodes").glob("*.json"))
