"""What real checkers watch in tests: listeners that come and go, and the rows beside them."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from tests.servers.collector import ROOT, CollectorServer

CHECKER = (sys.executable, "manage.py", "run_checker")


class Service:
    """A TCP listener on a port of its own that can be stopped and started again there."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self.port = 0
        self.start()

    def start(self) -> None:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        listening.listen(512)
        self.port = listening.getsockname()[1]
        self._socket = listening
        threading.Thread(target=_accept, args=(listening,), daemon=True).start()

    def stop(self) -> None:
        """From now on connections are refused."""
        if self._socket is not None:
            self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            self._socket = None


def _accept(listening: socket.socket) -> None:
    while True:
        try:
            listening.accept()[0].close()
        except OSError:
            return


def apply(checker: CollectorServer, directory: Path, *targets: dict[str, Any]) -> None:
    """Put targets in by `manage.py config apply`."""
    lines = []
    for target in targets:
        lines.append("[[targets]]")
        for name, value in target.items():
            lines.append(f"{name} = {json.dumps(value)}")
    file = directory / "targets.toml"
    file.write_text("\n".join(lines))
    done = subprocess.run(
        [sys.executable, "manage.py", "config", "apply", str(file), "--yes"],
        cwd=ROOT,
        env=checker.environ,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def tcp(name: str, port: int, **fields: Any) -> dict[str, Any]:
    """A target that is quickly judged."""
    return {
        "name": name,
        "kind": "tcp",
        "address": f"127.0.0.1:{port}",
        "interval_s": 1.0,
        "retry_interval_s": 1.0,
        "timeout_s": 2.0,
        "failure_threshold": 1,
        "success_threshold": 1,
        **fields,
    }


def rows(checker: CollectorServer, query: str, *, database: str = "control") -> list[Any]:
    """Rows of the control or records database, read beside the processes."""
    url = checker.environ.get("COLLECTOR_DATABASE_URL", "")
    if url:
        with psycopg.connect(url, autocommit=True) as connection:
            return connection.execute(query).fetchall()  # type: ignore[arg-type]
    file = checker.data_dir / f"{database}.sqlite3"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(query).fetchall()


def flips(checker: CollectorServer) -> list[tuple[int, int, str, str]]:
    """(target, seq, from, to), in order."""
    return rows(
        checker,
        "SELECT target_id, seq, from_status, to_status FROM healthmon_flip ORDER BY 1, 2",
    )


def statuses(checker: CollectorServer) -> dict[str, str]:
    """Each target's stored status by its name."""
    return dict(
        rows(
            checker,
            "SELECT t.name, s.status FROM healthmon_target t"
            " JOIN healthmon_targetstate s ON s.target_id = t.id",
        )
    )


def holders(checker: CollectorServer) -> dict[int, int]:
    """How many slots each living checker holds, by its pid."""
    found = rows(
        checker,
        "SELECT c.pid, count(*) FROM healthmon_probeslot s"
        " JOIN healthmon_checker c ON c.id = s.holder GROUP BY c.pid",
    )
    return {int(pid): int(count) for pid, count in found}


def assert_a_true_history(checker: CollectorServer) -> None:
    """No flip is lost, doubled or out of its row: each begins where the one before ended."""
    before: dict[int, tuple[int, str]] = {}
    for target, seq, from_status, to_status in flips(checker):
        last_seq, last = before.get(target, (0, "new"))
        assert seq == last_seq + 1, f"target {target}: flip {seq} follows {last_seq}"
        assert from_status == last, f"target {target}: flip {seq} is from {from_status}, not {last}"
        before[target] = seq, to_status
    stored = {
        target: (seq, status)
        for target, seq, status in rows(
            checker, "SELECT target_id, seq, status FROM healthmon_targetstate WHERE seq > 0"
        )
    }
    assert stored == before
    opened = rows(checker, "SELECT target_id, opened_seq FROM healthmon_incident ORDER BY 1, 2")
    downs = [(target, seq) for target, seq, _, to in flips(checker) if to == "down"]
    assert [tuple(one) for one in opened] == downs
