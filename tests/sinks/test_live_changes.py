"""A sink added while servers run: every process takes it without a restart."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.collector import ROOT, CollectorServer

CONFIG = """
[[sinks]]
name = "archive"
backend = "sinks.backends.file.FileSink"
required = true
[sinks.options]
directory = "archive"
path = "{service}.ndjson"
"""


def manage(server: CollectorServer, *args: str) -> str:
    done = subprocess.run(
        (sys.executable, "manage.py", *args),
        cwd=ROOT, env=server.environ, capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    return done.stdout


def configured(server: CollectorServer, name: str) -> int:
    """How many times a process said that it runs this sink."""
    found = (json.loads(line) for line in server.lines if "sinks configured" in line)
    return sum(name in line["sinks"] for line in found)


def archived(directory: Path) -> list[str]:
    return [
        json.loads(line)["record"]["message"]
        for path in sorted(directory.glob("*.ndjson"))
        for line in path.read_text().splitlines()
    ]


@pytest.mark.long
def test_a_sink_that_is_added_receives_records_in_every_process(collector_server, tmp_path):
    server = collector_server(environ={"COLLECTOR_WORKERS": "2"})
    server.wait_until(lambda: configured(server, "database") == 2)
    file = tmp_path / "sinks.toml"
    file.write_text(CONFIG)
    assert "+ sinks: archive" in manage(server, "config", "apply", str(file), "--yes")
    server.wait_until(lambda: configured(server, "archive") == 2)

    client = server.client()
    for n in range(20):
        body = {"service": "../../x", "message": f"m{n}"}
        answer = client.post("/logs?ack=stored", json=body)
        assert answer.status_code == 202, answer.text
        assert answer.json()["ack"] == "stored"
    directory = server.data_dir / "archive"
    assert sorted(archived(directory)) == sorted(f"m{n}" for n in range(20))
    assert [path.name for path in directory.iterdir()] == ["%2E.%2F..%2Fx.ndjson"]

    server.send(signal.SIGTERM)
    assert server.wait() == 0
    tables = [line.split() for line in server.lines if line.startswith("  archive ")]
    assert sum(int(row[2]) for row in tables) == 20
    assert all(row[-1] == "0" for row in tables)
