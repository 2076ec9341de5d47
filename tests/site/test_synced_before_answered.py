"""The debt of an acknowledgement, seen from outside: the kernel is asked to sync, then 202 leaves.

strace follows the real server's system calls; what it writes down is in the order in which the
calls returned.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.servers.collector import GENEROUS_S, CollectorServer

Start = Callable[..., CollectorServer]

pytestmark = [pytest.mark.server, pytest.mark.once]

ANSWER = re.compile(r"HTTP/1\.1 202")


def worker_of(server: CollectorServer) -> int:
    assert server.process is not None
    (worker,) = psutil.Process(server.process.pid).children()
    return worker.pid


def traced(server: CollectorServer, to: Path, ack: str) -> list[str]:
    """Post a record while strace looks on; returns the system calls, as they returned."""
    strace = shutil.which("strace")
    assert strace is not None, "strace is needed: apt-get install strace (make setup does it)"
    calls = "trace=fdatasync,sendto,sendmsg,write,writev"
    command = [strace, "-f", "-y", "-e", calls, "-s", "64", "-o", str(to)]
    command += ["-p", str(worker_of(server))]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said = tracer.stderr
    assert said is not None
    try:
        first = said.readline()
        assert "attached" in first, f"strace cannot attach: {first}"
        answer = server.client().post(f"/logs?ack={ack}", json={"message": "m"})
        assert answer.status_code == 202, answer.text
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(GENEROUS_S)
        said.close()
    return to.read_text().splitlines()


def positions(lines: list[str]) -> tuple[list[int], int]:
    """Where syncs of the log's segment returned, and where the answer was sent."""
    began: dict[str, bool] = {}
    synced = []
    for index, line in enumerate(lines):
        thread = line.split()[0]
        if "fdatasync(" in line:
            began[thread] = "/segment-" in line
        if "fdatasync" in line and line.rstrip().endswith("= 0") and began.get(thread):
            synced.append(index)
    answered = [index for index, line in enumerate(lines) if ANSWER.search(line)]
    assert answered, "the answer was not seen:\n" + "\n".join(lines)
    return synced, answered[0]


def test_a_sync_has_returned_before_the_answer_leaves(
    collector_server: Start, tmp_path: Path
) -> None:
    synced, answered = positions(traced(collector_server(), tmp_path / "calls", "wal"))
    assert synced, "nothing was synced"
    assert synced[0] < answered


def test_without_syncs_the_trace_shows_none(collector_server: Start, tmp_path: Path) -> None:
    """The same look at a server that never syncs its segments: the test above can fail."""
    server = collector_server(environ={"COLLECTOR_WAL_FSYNC": "never"})
    synced, _ = positions(traced(server, tmp_path / "calls", "wal"))
    assert synced == []
