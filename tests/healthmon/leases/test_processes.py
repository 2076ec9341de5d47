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
from psycopg.conninfo import conninfo_to_dict

from tests.conftest import ON_POSTGRESQL
from tests.servers.collector import ROOT, clean_environ
from tests.servers.installation import Prepared
from tests.servers.postgres import postgres
from tests.servers.proxy import Proxy, postgres_proxy

SCRIPT = Path(__file__).with_name("keeper_process.py")
GENEROUS_S = 180.0

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
def database(prepared: Prepared) -> Iterator[str]:
    """The URL of a prepared database; "" where it is files."""
    if not ON_POSTGRESQL:
        yield ""
        return
    url = postgres.create_database(like=prepared.database())
    yield url
    postgres.drop_database(url)


@pytest.fixture
def proxy(database: str) -> Iterator[Proxy]:
    """Between `database` and the processes started by tests that ask for it."""
    with postgres_proxy(database) as (_, proxy):
        yield proxy


@pytest.fixture
def start(
    request: pytest.FixtureRequest, prepared: Prepared, database: str, tmp_path: Path
) -> Iterator[Callable[[str], KeeperProcess]]:
    data_dir = tmp_path / "data"
    extra: dict[str, str] = {}
    if database:
        if "proxy" in request.fixturenames:
            parts = conninfo_to_dict(database)
            port = request.getfixturevalue("proxy").port
            database = f"postgresql://{parts['user']}@127.0.0.1:{port}/{parts['dbname']}"
        extra["COLLECTOR_DATABASE_URL"] = database
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


@pytest.mark.skipif(not ON_POSTGRESQL, reason="a file does not fall silent")
@pytest.mark.parametrize("fault", ["half_close", "stall"])
def test_a_killed_one_is_replaced_though_the_database_fell_silent(
    start: Callable[[str], KeeperProcess], proxy: Proxy, fault: str
) -> None:
    """The connections stay open, and nothing comes through them ever again."""
    first = start("first")
    first.holds(64)
    second = start("second")
    second.holds(32)
    second.says(lambda line: line == "beat")
    if fault == "stall":
        proxy.stall()
        assert proxy.wait_stalled(GENEROUS_S)
        first.process.kill()
        # Those that hang now hang for ever; new ones are answered.
        proxy.half_close("server")
        proxy.heal()
    else:
        first.process.kill()
        proxy.half_close("server")
    assert second.holds(64) >= 2


@pytest.mark.long
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
