"""Real servers: the ledger of a process that has ended closes when its log was delivered."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import httpx
import pytest

from tests.conftest import ServerFactory
from tests.servers.collector import ROOT, CollectorServer

LONG = pytest.mark.long


def manage(server: CollectorServer, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pause(server: CollectorServer, *, paused: bool) -> None:
    script = f"from sinks.models import SinkConfig; SinkConfig.objects.update(paused={paused})"
    manage(server, "shell", "--no-imports", "-c", script)


def ended(server: CollectorServer) -> dict[str, Any]:
    """The one row of the process that took the records in."""
    told = json.loads(manage(server, "ledger", "--json"))
    (process,) = [one for one in told["processes"] if one["ledger"]]
    (row,) = process["ledger"]
    row.setdefault("left_in_log", 0)
    return {name: row[name] for name in ("accepted", "stored", "in_flight", "left_in_log")}


# Many commands, each a process of its own, wait for two cores.
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "ending", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
@pytest.mark.parametrize("adopter_stops", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_row_of_an_ended_process_follows_its_log(
    collector_server: ServerFactory, ending: signal.Signals, adopter_stops: bool
) -> None:
    server = collector_server(started=False)
    pause(server, paused=True)
    server.start()
    lines = [{"message": f"line {n}"} for n in range(100)]
    answer = httpx.post(
        f"{server.url}/logs", json=lines, timeout=60, headers={"Connection": "close"}
    )
    assert answer.status_code == 202
    assert ended(server) == {"accepted": 100, "stored": 0, "in_flight": 100, "left_in_log": 0}
    if ending == signal.SIGKILL:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    else:
        assert server.stop() == 0
        assert ended(server) == {"accepted": 100, "stored": 0, "in_flight": 0, "left_in_log": 100}
    pause(server, paused=False)
    adopter = collector_server(
        environ={
            name: value
            for name, value in server.environ.items()
            if name == "COLLECTOR_DATABASE_URL"
        },
        data_dir=server.data_dir,
        prepare=False,
    )
    adopter.wait_for_line(lambda line: "is delivered and removed" in line)
    closed = {"accepted": 100, "stored": 100, "in_flight": 0, "left_in_log": 0}
    if adopter_stops:
        assert adopter.stop() == 0
        assert ended(adopter) == closed
    else:
        adopter.wait_for_line(lambda line: "the ledger of an ended process is closed" in line)
        assert ended(adopter) == closed
        assert adopter.stop() == 0
        assert ended(adopter) == closed
