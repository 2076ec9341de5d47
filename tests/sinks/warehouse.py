"""A table of somebody else's on a real PostgreSQL, and a postgres sink that fills it."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg

from pipeline.record import Batch, Record
from sinks.backends.postgres import PostgresOptions, PostgresSink
from sinks.options import decode_options
from tests.sinks.records import batch, record

EVENTS = """
    CREATE TABLE events (
        user_id bigint NOT NULL, action text NOT NULL CHECK (action <> 'forbidden'),
        ts timestamptz NOT NULL, record_id bigint UNIQUE, price numeric, tags text[], extra jsonb
    )
"""
COLUMNS = {
    "user_id": "payload.user_id",
    "action": "message",
    "ts": "timestamp",
    "record_id": "id",
    "price": "payload.price",
    "extra": "payload.extra",
}


def make(
    dsn: str, *, monotonic: Callable[[], float] = time.monotonic, **options: object
) -> PostgresSink:
    options = {"dsn": dsn, "table": "events", "columns": COLUMNS, **options}
    return PostgresSink(
        decode_options(PostgresOptions, options), name="warehouse", monotonic=monotonic
    )


def rows(dsn: str, query: str = "SELECT record_id FROM events ORDER BY record_id"):
    with psycopg.connect(dsn) as connection:
        return connection.execute(query.encode()).fetchall()


def event(user_id: object = 1, action: str = "login", **payload: object):
    return record({"user_id": user_id, **payload}, message=action)


def events(count: int, **bad: str) -> list[Record]:
    """So many events; `bad` names places and the action put there: `r3="forbidden"`."""
    return [event(n, bad.get(f"r{n}", "login")) for n in range(count)]


def checkpointed(
    sent: list[Record], *, log_id: str, number: int, below: int, sink: str = "testsink"
) -> Batch:
    """A batch whose log's checkpoint has passed all those numbered lower than `below`."""
    one = batch(sent, log_id=log_id)
    one.number, one.proofs_below, one.sink = number, below, sink
    return one


def proofs(dsn: str) -> list[tuple[str, int]]:
    found = rows(dsn, "SELECT log_id, number FROM collector_batch_proof ORDER BY 1, 2")
    return [(str(log), int(number)) for log, number in found]
