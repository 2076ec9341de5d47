"""Owns: processes that measure inside an installation, and where the installations come from.

Two of one kind share a PostgreSQL, or lie side by side as directories: what slows the machine slows
both.  Used from the main thread.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

from benchmarks.checker import Installation
from benchmarks.load import ROOT
from benchmarks.postgres import cluster

DATABASES = ("PostgreSQL", "SQLite")


class Child:
    """A `benchmarks.jobs_child`, asked one thing at a time."""

    def __init__(self, installation: Installation) -> None:
        self._log = open(installation.directory / "child.log", "w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.jobs_child"],
            cwd=ROOT,
            env={**installation.environ, "COLLECTOR_LOG_LEVEL": "WARNING"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def ask(self, name: str, /, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, arguments]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise RuntimeError(f"{name} {arguments} failed:\n{self._log.read()[-3000:]}")
        return json.loads(line)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()


@contextlib.contextmanager
def pair(database: str) -> Iterator[tuple[Child, Child]]:
    """Processes of two new installations."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(cluster()) if database == "PostgreSQL" else ""
        first = stack.enter_context(Installation(database_url=url))
        # A copy, which is quicker than a second preparation.
        other_url = ""
        if url:
            other_url = urlunsplit(urlsplit(url)._replace(path="/other"))
            with psycopg.connect(
                urlunsplit(urlsplit(url)._replace(path="/template1")), autocommit=True
            ) as connection:
                name = urlsplit(url).path.lstrip("/")
                connection.execute(f'CREATE DATABASE other TEMPLATE "{name}"')
        other = Installation(database_url=other_url)
        stack.callback(_remove, other.directory)
        shutil.copytree(first.directory, other.directory, dirs_exist_ok=True)
        yield stack.enter_context(Child(first)), stack.enter_context(Child(other))


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
