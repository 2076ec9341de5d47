"""A deadline for a reading query: the database stops it, and the caller can say so readably.

PostgreSQL: `statement_timeout` for the transaction. SQLite: a progress handler that the connection
calls between instructions. Runs in the thread that owns the connection; holds no state.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, connections, transaction

_SQLITE_STEPS = 20_000  # virtual machine instructions between looks at the clock: below 1 ms
_QUERY_CANCELED = "57014"


class QueryDeadlineExceeded(Exception):
    """The database stopped a query at its deadline."""


@contextmanager
def query_deadline(alias: str, seconds: float) -> Iterator[None]:
    """Stop any query of this block on `alias` that runs longer than `seconds`."""
    vendor = connections[alias].vendor
    if vendor == "postgresql":
        block = _postgresql(alias, seconds)
    elif vendor == "sqlite":
        block = _sqlite(alias, seconds)
    else:
        block = _unbounded()
    with block:
        yield


@contextmanager
def _unbounded() -> Iterator[None]:
    yield


@contextmanager
def _postgresql(alias: str, seconds: float) -> Iterator[None]:
    milliseconds = str(max(int(seconds * 1000), 1))
    try:
        with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            cursor.execute("SELECT current_setting('statement_timeout')")
            (previous,) = cursor.fetchone()
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [milliseconds])
            yield
            # Inside a longer transaction the setting would outlive this block.
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [previous])
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", "") == _QUERY_CANCELED:
            raise QueryDeadlineExceeded(f"stopped after {seconds:g} s") from error
        raise


@contextmanager
def _sqlite(alias: str, seconds: float) -> Iterator[None]:
    # No transaction here: ours begin IMMEDIATE, and a reader must not wait for the one writer.
    wrapper = connections[alias]
    wrapper.ensure_connection()
    raw: Any = wrapper.connection
    ends = time.monotonic() + seconds
    raw.set_progress_handler(lambda: time.monotonic() > ends, _SQLITE_STEPS)
    try:
        yield
    except OperationalError as error:
        if "interrupted" in str(error):
            raise QueryDeadlineExceeded(f"stopped after {seconds:g} s") from error
        raise
    finally:
        raw.set_progress_handler(None, 0)
