"""Owns: the real checker as a process of its own, over targets made for the occasion.

    python -m benchmarks.checker [--postgresql] [--targets N] [--interval S] [--seconds S] [--tls]

Targets are HTTP addresses on 127.0.a.b, a host each.  What is told: probes per CPU-second of the
checker process, in all its threads, with the history written; how late probes began; its memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from benchmarks.listeners import listeners
from benchmarks.load import ROOT
from benchmarks.postgres import cluster

START_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """Targets of one manner."""

    port: int
    count: int
    interval_s: float
    timeout_s: float = 10.0
    scheme: str = "http"
    first: int = 1
    options: dict[str, Any] | None = None

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "name": f"bench {self.port} {n}",
                "kind": "http",
                "address": f"{self.scheme}://127.0.{n // 250}.{n % 250 + 1}:{self.port}/health",
                "interval_s": self.interval_s,
                "timeout_s": self.timeout_s,
                "options": self.options or {},
            }
            for n in range(self.first, self.first + self.count)
        ]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a checker did between two looks at it."""

    seconds: float
    probes: int
    cpu_s: float
    rss_bytes: int
    stored: int
    report: dict[str, Any]

    @property
    def per_cpu_second(self) -> float:
        return self.probes / self.cpu_s if self.cpu_s else 0.0


class Installation:
    """A migrated data directory with targets; Django runs in other processes only."""

    def __init__(self, *, database_url: str = "", environ: dict[str, str] | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="collector-bench-"))
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("COLLECTOR_", "DJANGO_", "PROMETHEUS_"))
        } | {
            "COLLECTOR_ENV_FILE": os.devnull,
            "COLLECTOR_DATA_DIR": str(self.directory),
            "DJANGO_SETTINGS_MODULE": "collector_site.settings",
            "COLLECTOR_CHECKER_EVENT_LOOP": "asyncio",
            **({"COLLECTOR_DATABASE_URL": database_url} if database_url else {}),
            **(environ or {}),
        }

    def __enter__(self) -> Installation:
        self._run("manage.py", "prepare")
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def ask(self, code: str, value: Any = None) -> Any:
        """Run `code` where Django is set up; `value` is there as such, `answer` comes back."""
        script = (
            "import django, json, sys; django.setup(); value = json.loads(sys.stdin.read());"
            f"answer = None\n{code}\nprint(json.dumps(answer))"
        )
        return json.loads(self._run("-c", script, given=json.dumps(value)).splitlines()[-1])

    def targets(self, crowds: Sequence[Crowd]) -> None:
        rows = [row for crowd in crowds for row in crowd.rows()]
        self.ask(
            "from healthmon.models import *\n"
            "Target.objects.all().delete()\n"
            "Target.objects.bulk_create([Target(**row) for row in value], batch_size=500)",
            rows,
        )

    def stored(self) -> int:
        return int(self.ask("from healthmon.models import *\nanswer = ProbeResult.objects.count()"))

    def _run(self, *command: str, given: str = "") -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=self.environ,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    @contextlib.contextmanager
    def checker(self) -> Iterator[CheckerProcess]:
        with open(self.directory / "checker.log", "w") as log:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "run_checker"],
                cwd=ROOT,
                env=self.environ,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            yield CheckerProcess(process, self)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class CheckerProcess:
    def __init__(self, process: subprocess.Popen[bytes], installation: Installation) -> None:
        self._process = process
        self._seen = psutil.Process(process.pid)
        self._installation = installation

    def report(self) -> dict[str, Any]:
        """Its own figures, as its last heartbeat told them (every 5 s)."""
        found = self._installation.ask(
            "from control.models import Process\n"
            "one = Process.objects.filter(role='checker', pid=value).first()\n"
            "answer = dict(one.stats.get('checker') or {}, seen=one.last_seen_at.timestamp())"
            " if one else {}",
            self._process.pid,
        )
        return dict(found)

    def wait_for(self, targets: int) -> None:
        until = time.monotonic() + START_S
        while self.report().get("targets") != targets:
            if time.monotonic() > until or self._process.poll() is not None:
                log = (self._installation.directory / "checker.log").read_text()[-4000:]
                raise SystemExit(f"the checker does not follow its {targets} targets:\n{log}")
            time.sleep(0.5)

    def measure(self, seconds: float) -> Run:
        """Between two heartbeats that are about so long apart."""
        first, began = self._look()
        time.sleep(seconds)
        last, ended = self._look()
        return Run(
            seconds=last["seen"] - first["seen"],
            probes=last["probes"] - first["probes"],
            cpu_s=ended - began,
            rss_bytes=self._seen.memory_info().rss,
            stored=self._installation.stored(),
            report=last,
        )

    def _look(self) -> tuple[dict[str, Any], float]:
        """The next heartbeat's figures, and the CPU time when it had just been written."""
        before = self.report()["seen"]
        while True:
            report = self.report()
            times = self._seen.cpu_times()
            if report["seen"] != before:
                return report, times.user + times.system
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument("--targets", type=int, default=2_000)
    parser.add_argument("--interval", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--manner", default="answer", choices=("answer", "slow", "hang"))
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--hanging", type=int, default=0, help="targets that never answer")
    asked = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(cluster()) if asked.postgresql else ""
        port = stack.enter_context(listeners(asked.manner))
        environ = {"COLLECTOR_CHECKER_EVENT_LOOP": "uvloop"} if asked.uvloop else {}
        installation = stack.enter_context(Installation(database_url=url, environ=environ))
        crowds = [Crowd(port=port, count=asked.targets, interval_s=asked.interval)]
        if asked.hanging:
            silent = stack.enter_context(listeners("hang"))
            crowds.append(Crowd(port=silent, count=asked.hanging, interval_s=10.0))
        installation.targets(crowds)
        checker = stack.enter_context(installation.checker())
        checker.wait_for(asked.targets + asked.hanging)
        time.sleep(min(asked.interval, 10.0))
        run = checker.measure(asked.seconds)
        print(
            f"{run.probes:,} probes in {run.seconds:.1f} s ({run.probes / run.seconds:,.0f}/s), "
            f"{run.per_cpu_second:,.0f} per CPU-second, {run.rss_bytes / 2**20:.0f} MiB, "
            f"stored {run.stored:,}\n{json.dumps(run.report)}"
        )


if __name__ == "__main__":
    main()
