"""Two real processes on one database: killed, stopped for a while, and ended properly."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ON_POSTGRESQL
from tests.servers.collector import ROOT, clean_environ
from tests.servers.installation import Prepared
from tests.servers.postgres import postgres

SCRIPT = Path(__file__).with_name("keeper_process.py")
GENEROUS_S = 60.0

pytestmark = pytest.mark.server


class KeeperProcess:
    """Its lines are read by a thread of their own into `lines`."""

    def __init__(self, name: str, environ: dict[str, str]) -> None:
        self.lines: queue.Queue[str] = queue.Queue()
        self.process = subprocess.Popen(
            (sys.executable, str(SCRIPT), name),
            cwd=ROOT,
            env={**environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line.strip())

    def says(self, wanted: Callable[[str], bool]) -> str:
        """Wait for a line."""
        seen: list[str] = []
        while True:
            try:
                seen.append(self.lines.get(timeout=GENEROUS_S))
            except queue.Empty:
                raise AssertionError(f"the line did not come after {seen}") from None
            if wanted(seen[-1]):
                return seen[-1]

    def holds(self, slots: int) -> int:
        """Wait until it holds so many; returns the highest epoch."""
        return int(self.says(lambda line: line.startswith(f"held {slots} ")).split()[-1])

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(GENEROUS_S)
        self._reader.join(GENEROUS_S)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                pass


@pytest.fixture
def start(prepared: Prepared, tmp_path: Path) -> Iterator[Callable[[str], KeeperProcess]]:
    data_dir = tmp_path / "data"
    extra: dict[str, str] = {}
    url = ""
    if ON_POSTGRESQL:
        url = extra["COLLECTOR_DATABASE_URL"] = postgres.create_database(like=prepared.database())
        data_dir.mkdir()
    else:
        prepared.copy_to(data_dir)
    started: list[KeeperProcess] = []

    def begin(name: str) -> KeeperProcess:
        started.append(KeeperProcess(name, clean_environ(data_dir, extra)))
        return started[-1]

    yield begin
    for one in started:
        one.end()
    if url:
        postgres.drop_database(url)


def test_a_killed_one_a_frozen_one_and_one_that_ends(
    start: Callable[[str], KeeperProcess],
) -> None:
    first = start("first")
    assert first.holds(64) == 1
    second = start("second")
    second.holds(32)
    first.holds(32)

    first.process.kill()
    assert second.holds(64) == 2

    third = start("third")
    third.holds(32)
    second.holds(32)
    # Not in the middle of a statement: SQLite's lock would be held by whoever is stopped.
    third.says(lambda line: line == "beat")
    third.process.send_signal(signal.SIGSTOP)
    second.holds(64)
    third.process.send_signal(signal.SIGCONT)
    # It gives everything up by itself, and then gets a share anew, under new epochs.
    third.holds(0)
    assert third.holds(32) >= 4
    second.holds(32)

    assert third.process.stdin is not None
    third.process.stdin.close()
    third.says(lambda line: line == "stopped")
    assert third.process.wait(GENEROUS_S) == 0
    second.holds(64)
