"""Owns: submitting to the real server, and how soon the real runner begins what it was given.

The server is started with the bare view beside it; the runner is `manage.py run_jobs` in the same
installation.  Used from the main thread.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.jobs_sender import BODY, send
from benchmarks.load import ROOT
from benchmarks.postgres import cluster
from benchmarks.server import Server, ServerFailed

BARE = "/bare/jobs"
PAUSES_S = (0.1, 0.3)
PATIENCE_S = 60.0

_LATENCIES = """
import django, json; django.setup()
from jobs.store.models import Job
rows = Job.objects.order_by('id').values_list('state', 'attempts', 'created_at', 'started_at')
print(json.dumps([[state, attempts, (began - made).total_seconds() if began else None]
                  for state, attempts, made, began in rows]))
"""
_MAKE = "import django; django.setup()\nfrom benchmarks.jobs_bare import make_table\nmake_table()"
_COUNT = """
import django; django.setup()
from jobs.store.models import Job
from benchmarks.jobs_bare import Row
print(Job.objects.count(), Row.objects.count())
"""


class JobsServer:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._sent = {"/jobs": 0, BARE: 0}

    def submit(self, path: str, *, requests: int, clients: int) -> float:
        """Requests a second."""
        said = send(url=self._server.url, path=path, requests=requests, clients=clients)
        self._sent[path] += int(said["sent"])
        return said["rate"]

    def check(self) -> None:
        """What was answered is there."""
        jobs, rows = map(int, self._server.run("-c", _COUNT).split()[-2:])
        if (jobs, rows) != (self._sent["/jobs"], self._sent[BARE]):
            raise ServerFailed(f"answered {self._sent}, found {jobs} jobs and {rows} rows")

    def start_latencies(self, samples: int) -> list[float]:
        """Milliseconds from a job's creation to its start, of jobs that find nothing to do."""
        with self._runner():
            parts = urlsplit(self._server.url)
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
            warm = 5
            for _ in range(warm + samples):
                connection.request("POST", "/jobs", BODY, {"Content-Type": "application/json"})
                response = connection.getresponse()
                body = response.read()
                if response.status != 202:
                    raise ServerFailed(f"POST /jobs answered {response.status}: {body[:300]!r}")
                time.sleep(random.uniform(*PAUSES_S))  # not in step with a poll
            connection.close()
            self._sent["/jobs"] += warm + samples
            rows = self._ended()
        if any(row[:2] != ["succeeded", 1] for row in rows):
            raise ServerFailed(f"not all jobs succeeded at once: {rows}")
        return [row[2] * 1000 for row in rows[-samples:]]

    def _ended(self) -> list[Any]:
        until = time.monotonic() + PATIENCE_S
        while True:
            rows: list[Any] = json.loads(self._server.run("-c", _LATENCIES).splitlines()[-1])
            if all(row[0] not in ("queued", "running", "scheduled") for row in rows):
                return rows
            if time.monotonic() > until:
                raise ServerFailed(f"jobs do not end: {rows[-3:]}")
            time.sleep(0.5)

    @contextlib.contextmanager
    def _runner(self) -> Iterator[None]:
        log = self._server.directory / "jobs.log"
        with open(log, "w") as out:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "run_jobs"],
                cwd=ROOT,
                env=self._server.environ,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            _await_runner(process, log)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(45)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_runner(process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while "runner started" not in log.read_text():
        if time.monotonic() > until or process.poll() is not None:
            raise ServerFailed(f"the runner did not start:\n{log.read_text()[-3000:]}")
        time.sleep(0.2)
    time.sleep(2.0)  # its first rounds: cleaning up, folding, reading what is configured


@contextlib.contextmanager
def jobs_server(database: str) -> Iterator[JobsServer]:
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(cluster()) if database == "PostgreSQL" else ""
        server = stack.enter_context(
            Server(
                database_url=url,
                # Nobody runs what is submitted in bulk.
                environ={"COLLECTOR_JOBS_CAPACITY": "100000000"},
                application="benchmarks.jobs_bare:application",
            )
        )
        server.run("-c", _MAKE)
        yield JobsServer(server)
