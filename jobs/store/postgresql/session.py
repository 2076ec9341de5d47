"""psycopg itself, on Django's connection of the calling thread.

The statements here are long and always the same: PostgreSQL plans them once for each connection,
where nothing between here and there (a pooler of transactions) forbids it.  Left to itself it would
plan arrays anew each time, which costs more than carrying them out; and a plan that was made while
the tables were small, and reads them from end to end, would be kept while they grow.

So each statement brings the planner's settings along, in its own transaction and its own round
trip: the connection is Django's, and what others ask by it is planned as ever.

`_usual` is touched by each connection's own thread only, but for the map itself, which is safe.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import psycopg
from django.db import connection

CHANNEL = "collector_jobs"
# What a listener is told: there is something to claim; somebody wants jobs cancelled.
QUEUED_WORD, CANCEL_WORD = "queued", "cancel"

_NAMES = ("plan_cache_mode", "enable_seqscan", "jit")
_OURS = ("force_generic_plan", "off", "off")
_PUT = "SELECT " + ", ".join(f"set_config('{name}', %s, true)" for name in _NAMES)
_READ = "SELECT " + ", ".join(f"current_setting('{name}')" for name in _NAMES)
_PREPARE_AFTER = 3
_usual: weakref.WeakKeyDictionary[psycopg.Connection[Any], tuple[str, ...]] = (
    weakref.WeakKeyDictionary()
)


def ask(statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The statement's rows.  Errors come out as `django.db.Error`."""
    connection.ensure_connection()
    driver: psycopg.Connection[Any] = connection.connection
    pooled = connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS", False)
    before = driver.prepare_threshold
    driver.prepare_threshold = None if pooled else _PREPARE_AFTER
    try:
        with connection.wrap_database_errors, psycopg.Cursor(driver) as made:
            if pooled or not psycopg.Pipeline.is_supported():
                made.execute(statement, parameters)
            else:
                _carry_out(driver, made, statement, parameters)
            return made.fetchall()
    finally:
        driver.prepare_threshold = before


def _carry_out(
    driver: psycopg.Connection[Any],
    made: psycopg.Cursor[Any],
    statement: str,
    parameters: Mapping[str, Any],
) -> None:
    """Settings and statement together: sent at once, and one transaction where there is none."""
    # Of somebody's transaction the settings are to be what they were, for what he asks next.
    usual = _usual_of(driver) if connection.in_atomic_block else None
    with psycopg.Cursor(driver) as aside, driver.pipeline():
        aside.execute(_PUT, _OURS)
        made.execute(statement, parameters)
        if usual is not None:
            aside.execute(_PUT, usual)


def _usual_of(driver: psycopg.Connection[Any]) -> tuple[str, ...]:
    usual = _usual.get(driver)
    if usual is None:
        with psycopg.Cursor(driver) as asked:
            usual = _usual[driver] = asked.execute(_READ).fetchone() or ()
    return usual
