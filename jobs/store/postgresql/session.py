"""psycopg itself, on Django's connection of the calling thread.

The statements here are long and always the same: PostgreSQL plans them once for each connection,
where nothing between here and there (a pooler of transactions) forbids it.  Left to itself it would
plan arrays anew each time, which costs more than carrying them out; and a plan that was made while
the tables were small, and reads them from end to end, would be kept while they grow.

`_settled` is touched by each connection's own thread only, but for the set itself, which is safe.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connection

CHANNEL = "collector_jobs"
# What a listener is told: there is something to claim; somebody wants jobs cancelled.
QUEUED_WORD, CANCEL_WORD = "queued", "cancel"

_SETTLE = """
SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off
"""
_settled: weakref.WeakSet[psycopg.Connection[Any]] = weakref.WeakSet()


@contextmanager
def cursor() -> Iterator[psycopg.Cursor[Any]]:
    """Errors come out as `django.db.Error`."""
    connection.ensure_connection()
    driver: psycopg.Connection[Any] = connection.connection
    pooled = connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS", False)
    before = driver.prepare_threshold
    with connection.wrap_database_errors, psycopg.Cursor(driver) as made:
        # In a transaction it would be undone with it.
        if not (pooled or connection.in_atomic_block or driver in _settled):
            made.execute(_SETTLE)
            _settled.add(driver)
        driver.prepare_threshold = None if pooled else 3
        try:
            yield made
        finally:
            driver.prepare_threshold = before
