"""A fresh installation in a data directory, migrated as `make run` would."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg

from tests.servers.collector import ROOT, CollectorServer, clean_environ
from tests.servers.postgres import postgres


def prepare_installation(data_dir: Path, environ: Mapping[str, str]) -> str:
    """Run `manage.py prepare`; returns what it printed."""
    done = subprocess.run(
        (sys.executable, "manage.py", "prepare"),
        cwd=ROOT,
        env=clean_environ(data_dir, environ),
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"the installation could not be prepared:\n{done.stdout}{done.stderr}")
    return done.stdout


class Prepared:
    """An installation that was prepared once, when the first test asked; tests get copies."""

    def __init__(self, data_dir: Path, *, on_postgresql: bool) -> None:
        self._data_dir = data_dir
        self._on_postgresql = on_postgresql
        self._url = ""

    def database(self) -> str:
        """The URL of the prepared PostgreSQL database, "" on SQLite."""
        if not self._data_dir.exists():
            environ = {}
            if self._on_postgresql:
                self._url = environ["COLLECTOR_DATABASE_URL"] = postgres.create_database()
            prepare_installation(self._data_dir, environ)
        return self._url

    def copy_to(self, data_dir: Path) -> None:
        self.database()
        shutil.copytree(self._data_dir, data_dir)

    def drop(self) -> None:
        if self._url:
            postgres.drop_database(self._url)


def stored_messages(server: CollectorServer) -> list[str]:
    """The messages of all stored log records, read beside the server."""
    query = "SELECT message FROM ingest_logrecord ORDER BY id"
    url = server.environ.get("COLLECTOR_DATABASE_URL", "")
    if url:
        with psycopg.connect(url) as connection:
            return [row[0] for row in connection.execute(query)]
    file = server.data_dir / "records.sqlite3"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        return [row[0] for row in database.execute(query)]


@contextmanager
def records_locked(server: CollectorServer) -> Iterator[None]:
    """Nobody can store records meanwhile, as with a database that is busy or away."""
    url = server.environ.get("COLLECTOR_DATABASE_URL", "")
    if url:
        with psycopg.connect(url) as connection:
            connection.execute("LOCK TABLE ingest_logrecord IN ACCESS EXCLUSIVE MODE")
            yield
            connection.rollback()
        return
    with closing(sqlite3.connect(server.data_dir / "records.sqlite3", timeout=30)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.rollback()
