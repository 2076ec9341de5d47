"""Owns: the real server as a process of its own, in a data directory of its own.

Started from the product's own server configuration on a free port; ended by its pid.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped]

from benchmarks.load import ROOT

_START_S = 90.0


class ServerFailed(Exception):
    """The server did not do what a benchmark needs; its output is in the text."""


class Server:
    """`with Server(...) as server`: migrated, configured, and answering at `server.url`."""

    def __init__(
        self,
        *,
        database_url: str = "",
        environ: dict[str, str] | None = None,
        sinks: list[dict[str, Any]] | None = None,
        with_key: bool = False,
        application: str = "collector_site.wsgi:application",
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="collector-bench-"))
        self._sinks, self._with_key, self._application = sinks, with_key, application
        self._environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("COLLECTOR_", "DJANGO_", "PROMETHEUS_"))
            and name not in ("HOST", "PORT")
        } | {
            "COLLECTOR_ENV_FILE": os.devnull,
            "COLLECTOR_DATA_DIR": str(self.directory),
            "PORT": "0",
            "DJANGO_SETTINGS_MODULE": "collector_site.settings",
            **({"COLLECTOR_DATABASE_URL": database_url} if database_url else {}),
            **(environ or {}),
        }
        self._process: subprocess.Popen[str] | None = None
        self._lines: list[str] = []
        self.url = ""
        self.key = ""

    @property
    def environ(self) -> dict[str, str]:
        """The installation's, for other processes in it."""
        return dict(self._environ)

    def prepare(self) -> None:
        """Make the installation, without starting a server in it."""
        self.run("manage.py", "prepare")

    def __enter__(self) -> Server:
        try:
            self.prepare()
            if self._sinks is not None or self._with_key:
                wanted: dict[str, Any] = {"key": self._with_key}
                if self._sinks is not None:
                    wanted["sinks"] = self._sinks
                said = self.run("-m", "benchmarks.installation", json.dumps(wanted))
                self.key = json.loads(said.splitlines()[-1]).get("key", "")
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def remove(self) -> None:
        """Its files; for an installation in which no server was started."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def __exit__(self, *exc: object) -> None:
        process = self._process
        if process is not None:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(45)
                except subprocess.TimeoutExpired:
                    pass
            try:
                os.killpg(process.pid, signal.SIGKILL)  # the session is the server's own
            except ProcessLookupError:
                pass
            process.wait()
        self.remove()

    def pause_sinks(self, paused: bool) -> None:
        """Whether the sinks are paused, which the server notices by itself."""
        self.run("-m", "benchmarks.installation", json.dumps({"paused": paused}))

    def restart_killed(self) -> None:
        """SIGKILL, and a new server on the same files."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.url = ""
        self._start()

    def run(self, *arguments: str) -> str:
        """What another program says that runs in this installation."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if done.returncode:
            raise ServerFailed(f"{' '.join(arguments[:2])}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "gunicorn", "-c", "collector_site/gunicorn_conf.py",
                self._application,
            ],
            cwd=ROOT,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        ready = threading.Event()  # of this process: an earlier one's output may end later
        reader = threading.Thread(
            target=self._read, args=(self._process.stdout, ready), daemon=True
        )
        reader.start()
        if not ready.wait(_START_S) or not self.url:
            raise ServerFailed("the server did not become ready:\n" + "\n".join(self._lines))
        self.wait_for(lambda stats: bool(stats.get("pipelines")), what="its pipelines")

    def _read(self, stream: IO[str], ready: threading.Event) -> None:
        for line in stream:
            # Bounded: what is kept is only for an error's text.
            if len(self._lines) < 500:
                self._lines.append(line.rstrip("\n"))
            if line.startswith("ready http"):
                self.url = line.split()[1]
                ready.set()
        stream.close()
        ready.set()

    # -- looking at it -------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        try:
            headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
            connection.request("GET", "/stats", headers=headers)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise ServerFailed(f"GET /stats answered {response.status}: {body[:300]!r}")
        return _engine_stats(json.loads(body))

    def wait_for(self, wanted: Any, *, what: str, timeout_s: float = 120.0) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while True:
            stats = self.stats()
            if wanted(stats):
                return stats
            if time.monotonic() > deadline:
                raise ServerFailed(f"waited {timeout_s:g} s for {what}; last: {stats}")
            time.sleep(0.02)

    def wait_until_stored(self, count: int, *, timeout_s: float = 300.0) -> float:
        """Until this process's pipelines have stored `count` records; the wall time then."""
        self.wait_for(
            lambda stats: sum(each["stored"] for each in stats["pipelines"]) >= count,
            what=f"{count} stored records",
            timeout_s=timeout_s,
        )
        return time.time()

    def cpu_seconds(self) -> float:
        """What the server and its workers have used so far."""
        assert self._process is not None
        parent = psutil.Process(self._process.pid)
        times = [each.cpu_times() for each in (parent, *parent.children(recursive=True))]
        return sum(each.user + each.system for each in times)

    def rss_bytes(self) -> int:
        """Of the server and its workers."""
        assert self._process is not None
        parent = psutil.Process(self._process.pid)
        return sum(each.memory_info().rss for each in (parent, *parent.children(recursive=True)))


def _engine_stats(stats: dict[str, Any]) -> dict[str, Any]:
    """`/stats` may wrap what the engine says in a name of its own."""
    if "pipelines" in stats:
        return stats
    for value in stats.values():
        if isinstance(value, dict) and "pipelines" in value:
            return value
    return {"pipelines": []}
