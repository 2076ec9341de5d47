"""The real server's end: what is delivered, what stays in the log, who says so, and how fast."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import httpx
import psutil
import pytest

from tests.servers.collector import GENEROUS_S, ROOT, CollectorServer
from tests.servers.installation import records_locked, stored_messages
from tests.servers.rawclient import RawClient
from tests.site.test_databases_away import SUPERVISOR, eventually, late, settled
from tests.site.test_server import Sender, batch

pytestmark = [pytest.mark.server, pytest.mark.once]

Start = Callable[..., CollectorServer]
QUICK_ADOPTION = {"COLLECTOR_WAL_ADOPT_EVERY_S": "0.5"}


def post(server: CollectorServer, first: int, count: int) -> None:
    answer = server.client().post("/logs?ack=wal", json=batch(first, count))
    assert answer.status_code == 202, answer.text
    assert answer.json()["ack"] == "wal"


def messages(first: int, count: int) -> Counter[str]:
    return Counter(record["message"] for record in batch(first, count))


def stored(server: CollectorServer) -> Counter[str]:
    return Counter(stored_messages(server))


def again(start: Start, server: CollectorServer) -> CollectorServer:
    """The next start on the same data directory and databases."""
    kept = {name: text for name, text in server.environ.items() if "DATABASE_URL" in name}
    return start(data_dir=server.data_dir, environ=kept | QUICK_ADOPTION, prepare=False)


def ledger_of(server: CollectorServer) -> dict[str, int]:
    """The closing line of the printed ledger."""
    line = server.wait_for_line(lambda text: text.strip().startswith("enqueued "))
    assert line.endswith(": balanced"), line
    left, _, right = line.strip().removesuffix(": balanced").partition(" = ")
    parts = [left, *right.split(" + ")]
    return {name: int(count) for name, count in (part.split() for part in parts)}


def manage(server: CollectorServer, *arguments: str) -> tuple[int, Any]:
    done = subprocess.run(
        (sys.executable, "manage.py", *arguments, "--json"),
        cwd=ROOT,
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=GENEROUS_S,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def test_what_a_stop_could_not_deliver_is_delivered_by_the_next_start(
    collector_server: Start,
) -> None:
    server = collector_server()
    with records_locked(server):
        post(server, 0, 300)
        assert server.stop() == 0, server.output
        ledger = ledger_of(server)
        assert (ledger["enqueued"], ledger["left_in_log"]) == (300, 300)
    status, document = manage(server, "ledger")
    assert status == 0
    (process,) = document["processes"]
    assert [row["left_in_log"] for row in process["ledger"]] == [300]
    follower = again(collector_server, server)
    eventually(lambda: stored(follower) == messages(0, 300), "the next start did not deliver")
    assert follower.stop() == 0
    assert stored(follower) == messages(0, 300)


@pytest.mark.long
def test_the_deadline_holds_against_a_hung_sink_and_stalled_clients(
    collector_server: Start, postgres_dsn: str
) -> None:
    with late(postgres_dsn) as database, ExitStack() as stack:
        database.come()
        server = collector_server(
            environ={
                "COLLECTOR_RECORDS_DATABASE_URL": database.url,
                "COLLECTOR_STOP_DEADLINE_S": "14",
                "COLLECTOR_READ_DEADLINE_S": "600",
            }
        )
        post(server, 0, 10)
        eventually(lambda: settled(server.client()), "not stored")
        database.proxy.stall()
        post(server, 100, 300)
        clients = [stack.enter_context(RawClient(server.url)) for _ in range(3)]
        for client in clients:
            client.post("/logs", length=1000, body=b'[{"mess')
        assert server.stop() == 0, server.output
        # Beyond the deadline the arbiter would have killed it.
        assert "Worker exiting" in server.output
        named = server.wait_for_line(lambda line: "has written batch" in line)
        assert "thread sink-database" in named
        assert "records left" in named
        assert '"event":"still draining"' in server.output
        assert ledger_of(server)["left_in_log"] >= 300


@pytest.mark.long
def test_a_second_ctrl_c_leaves_the_rest_in_the_log_at_once(
    collector_server: Start, postgres_dsn: str
) -> None:
    with late(postgres_dsn) as database:
        database.come()
        url = {"COLLECTOR_RECORDS_DATABASE_URL": database.url}
        # More than anybody waits here: only haste ends it.
        patient = {"COLLECTOR_STOP_DEADLINE_S": str(4 * GENEROUS_S)}
        server = collector_server(environ=url | patient, command=SUPERVISOR)
        post(server, 0, 10)
        database.proxy.stall()
        post(server, 100, 300)
        server.send(signal.SIGINT)
        # For so long the worker itself has been stopping: two presses, not one told twice.
        server.wait_for_line(lambda line: "still stopping after" in line)
        server.send(signal.SIGINT)
        assert server.wait() == 0, server.output
        assert "asked twice" in server.output
        assert "last state cannot be written" not in server.output
        assert ledger_of(server)["left_in_log"] >= 300
        database.proxy.heal()
        follower = collector_server(
            environ=url | QUICK_ADOPTION, data_dir=server.data_dir, command=SUPERVISOR
        )
        eventually(
            lambda: follower.client().get("/stats").json()["log"]["adopted"] == [],
            "the log was not delivered",
        )
        assert follower.stop() == 0


def worker_pid(server: CollectorServer) -> int:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=GENEROUS_S) as client:
        return int(client.get("/healthz").json()["pid"])


@pytest.mark.long
def test_a_hangup_hands_over_to_new_workers_without_losing_anything(
    collector_server: Start,
) -> None:
    server = collector_server(command=SUPERVISOR)
    before = worker_pid(server)
    sender = Sender(server, 0)
    assert sender.some.wait(GENEROUS_S)
    server.send(signal.SIGHUP)
    server.wait_for_line(lambda line: f"Worker exiting (pid: {before})" in line)
    acknowledged = sender.join()
    eventually(lambda: worker_pid(server) != before, "no new worker")
    post(server, 90_000_000, 10)
    assert server.stop() == 0
    found = stored(server)
    assert not Counter(acknowledged) - found
    assert not messages(90_000_000, 10) - found
    assert set(found.values()) == {1}
    assert [line for line in server.lines if line.startswith("ready")] == [f"ready {server.url}"]


@pytest.mark.long
def test_a_recycled_worker_drains_and_is_replaced(collector_server: Start) -> None:
    server = collector_server(environ={"GUNICORN_CMD_ARGS": "--max-requests 5"})
    sent = Counter[str]()
    pids = set()
    for number in range(40):
        with httpx.Client(base_url=server.url, trust_env=False, timeout=GENEROUS_S) as client:
            try:
                answer = client.post("/logs", json=batch(number, 1))
                if answer.status_code == 202:
                    sent[f"m{number}"] += 1
                if number % 4 == 0:
                    pids.add(client.get("/healthz").json()["pid"])
            except httpx.TransportError:
                continue  # its kept connection was closed as it asked: clients try again
    assert server.stop() == 0
    assert len(pids) > 1, "no worker was replaced"
    found = stored(server)
    assert not sent - found
    assert set(found.values()) == {1}
    assert "it had served max_requests" in " ".join(exit_reasons(server))


def exit_reasons(server: CollectorServer) -> list[str]:
    _, document = manage(server, "ledger")
    return [process["exit_reason"] for process in document["processes"]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_one_of_two_workers_goes_and_its_log_is_adopted(
    collector_server: Start, number: int
) -> None:
    server = collector_server(environ={"COLLECTOR_WORKERS": "2", **QUICK_ADOPTION})
    workers = psutil.Process(server.pid).children()
    assert len(workers) == 2
    with records_locked(server):
        for first in range(0, 2000, 100):
            post(server, first, 100)
        victim = worker_pid(server)
        os.kill(victim, number)
        psutil.wait_procs(
            [worker for worker in workers if worker.pid == victim], timeout=GENEROUS_S
        )
        eventually(
            lambda: len(psutil.Process(server.pid).children()) == 2, "the worker was not replaced"
        )
        post(server, 5000, 100)
    eventually(
        lambda: stored(server) == messages(0, 2000) + messages(5000, 100),
        "what the worker had taken in was not all stored",
    )
    assert server.stop() == 0, server.output
    assert stored(server) == messages(0, 2000) + messages(5000, 100)


def test_drain_and_ledger_know_what_is_left(collector_server: Start) -> None:
    server = collector_server()
    with records_locked(server):
        post(server, 0, 100)
        status, document = manage(server, "drain", "--timeout", "3")
        safe = f"they are safe in the log: {document}"
        assert (status, document["left_in_log"]) == (0, 100), safe
        (process,) = document["processes"]
        assert process["settled"] is False
        assert process["ledger"][0]["left_in_log"] == 100
        assert document["imbalance"] == 0
    refused = server.client().post("/logs", json=batch(0, 1))
    assert refused.status_code == 503
    assert server.stop() == 0
    follower = again(collector_server, server)
    eventually(lambda: stored(follower) == messages(0, 100), "the next start did not deliver")
    status, document = manage(follower, "drain")
    assert (status, document["ok"], document["left_in_log"]) == (0, True, 0)
    assert follower.stop() == 0
