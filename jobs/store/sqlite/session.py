"""The one writer: SQLite has room for one, so that this process's threads queue for it here.

Spinning on "locked" costs more than waiting, and gives the turn to whoever is lucky.  `_lock` is
held for one short transaction; inside somebody's own transaction it is not asked for, because the
file is locked by then and whoever holds `_lock` waits for it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from django.db import connection, transaction

_lock = threading.Lock()


@contextmanager
def reading() -> Iterator[sqlite3.Connection]:
    """Errors come out as `django.db.Error`."""
    connection.ensure_connection()
    driver: sqlite3.Connection = connection.connection
    with connection.wrap_database_errors:
        yield driver


@contextmanager
def turn() -> Iterator[None]:
    """This process's turn to write, and a transaction; part of one where there is one."""
    if connection.in_atomic_block:
        with transaction.atomic():
            yield
    else:
        with _lock, transaction.atomic():
            yield


@contextmanager
def writing() -> Iterator[sqlite3.Connection]:
    with turn(), reading() as driver:
        yield driver


def stamp(moment: datetime | None) -> str | None:
    """A time as Django keeps it here."""
    return None if moment is None else str(moment.astimezone(UTC).replace(tzinfo=None))


def moment(value: str | datetime) -> datetime:
    read = datetime.fromisoformat(value) if isinstance(value, str) else value
    return read.replace(tzinfo=UTC)
