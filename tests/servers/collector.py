"""The real server as a subprocess: a free port, a data directory of its own, ended by its pid.

Each `CollectorServer` is used from one test thread; `_reader` collects its output lines, guarded
by the condition `_changed`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
GENEROUS_S = 180.0
LOOK_EVERY_S = 0.25
SERVER = (
    sys.executable,
    "-m",
    "gunicorn",
    "-c",
    "collector_site/gunicorn_conf.py",
    "collector_site.wsgi:application",
)


def clean_environ(data_dir: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """A fresh installation's environment: nothing of the test run's settings shines through."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COLLECTOR_", "DJANGO_", "PROMETHEUS_"))
        and name not in ("HOST", "PORT")
    }
    environ |= {
        "COLLECTOR_ENV_FILE": os.devnull,
        "COLLECTOR_DATA_DIR": str(data_dir),
        "PORT": "0",
        "PYTHONUNBUFFERED": "1",
    }
    return environ | dict(extra)


class CollectorServer:
    def __init__(
        self,
        *,
        data_dir: Path,
        environ: Mapping[str, str] | None = None,
        command: tuple[str, ...] = SERVER,
    ) -> None:
        self.data_dir = data_dir
        self.environ = clean_environ(data_dir, environ or {})
        self.url = ""
        self._command = command
        self._changed = threading.Condition(threading.RLock())
        self._lines: list[str] = []
        self._ended = 0
        self._clients: list[httpx.Client] = []
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> CollectorServer:
        """Start and wait for the ready line."""
        self.spawn()
        self.url = self.wait_for_line(lambda line: line.startswith("ready http")).split()[1]
        return self

    def spawn(self) -> CollectorServer:
        """Start without waiting for anything."""
        self.process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            threading.Thread(target=self._read, args=(stream,), daemon=True).start()
        return self

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        stream.close()
        with self._changed:
            self._ended += 1
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def lines(self) -> list[str]:
        with self._changed:
            return list(self._lines)

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for_line(self, wanted: Callable[[str], bool], timeout_s: float = GENEROUS_S) -> str:
        """The first line that `wanted` accepts; fails with all output when it does not come."""

        def found() -> str | None:
            return next((line for line in self._lines if wanted(line)), None)

        self.wait_until(lambda: found() is not None, timeout_s)
        line = found()
        assert line is not None
        return line

    def wait_until(self, true: Callable[[], bool], timeout_s: float = GENEROUS_S) -> None:
        """Wait until `true` is so; fails with all output when that does not come about."""
        due = time.monotonic() + timeout_s
        with self._changed:
            while self._ended < 2 and (left := due - time.monotonic()) > 0:
                if true():
                    return
                # It may come about without a word from the server.
                self._changed.wait(min(left, LOOK_EVERY_S))
            if true():
                return
        raise AssertionError(f"the awaited output did not come; all of it:\n{self.output}")

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout_s: float = GENEROUS_S) -> int:
        """The exit status, once the process has ended and all its output was read."""
        assert self.process is not None
        status = self.process.wait(timeout_s)
        with self._changed:
            self._changed.wait_for(lambda: self._ended == 2, 10)
        return status

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.send(number)
        return self.wait()

    def kill(self) -> None:
        """End it as the kernel would, at whatever it is doing."""
        self.send(signal.SIGKILL)
        self.wait()

    def end(self) -> None:
        """Leave nothing behind, whatever the test did. The session is the server's own."""
        for client in self._clients:
            client.close()
        if self.process is None:
            return
        if self.process.poll() is None:
            self.send(signal.SIGTERM)
            try:
                self.process.wait(45)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.wait()

    def client(self, **options: Any) -> httpx.Client:
        """A client of this server, closed when the server is ended."""
        client = httpx.Client(base_url=self.url, timeout=GENEROUS_S, trust_env=False, **options)
        self._clients.append(client)
        return client
