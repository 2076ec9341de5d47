"""The records database of this installation: each record type in the table its app registered.

Chooses by the database that the `records` alias names; the work is in `sinks.postgresql` and
`sinks.sqlite`.  `_lock` guards the making of the store; writes go to it without a lock.
"""

from __future__ import annotations

import sqlite3
import threading
from typing import Annotated, ClassVar, cast

import psycopg
from django.db import connections as django_connections
from msgspec import Meta
from psycopg import conninfo as pg_conninfo

from pipeline.errors import SinkFault
from pipeline.record import Batch
from pipeline.sink import Written
from sinks.base import BaseSink
from sinks.options import SinkOptions
from sinks.postgresql.connections import Connections
from sinks.postgresql.tables import PostgresTables
from sinks.recordids import DEFAULT_DAYS
from sinks.sqlite.tables import MAX_ROWS, SqliteTables

ALIAS = "records"


class DatabaseOptions(SinkOptions, frozen=True, kw_only=True):
    statement_timeout_s: Annotated[
        float, Meta(ge=1, le=3600, description="PostgreSQL: longest time for one statement.")
    ] = 60.0
    dedupe_by_id: Annotated[
        bool,
        Meta(description="A record's own id is stored once per tenant and type; costs some speed."),
    ] = False
    dedupe_days: Annotated[
        int, Meta(ge=1, le=365, description="With dedupe_by_id: how long an id is remembered.")
    ] = DEFAULT_DAYS


class DatabaseSink(BaseSink[DatabaseOptions]):
    """Stores records where the admin shows them."""

    Options: ClassVar[type[SinkOptions]] = DatabaseOptions
    label = "This installation's database"
    description = (
        "The tables that the admin browses: COPY into day partitions on PostgreSQL, bulk inserts "
        "on SQLite."
    )
    supports_probe = True
    supports_exactly_once = True
    supports_partial_failure = True

    def __init__(self, options: DatabaseOptions, *, name: str = "") -> None:
        super().__init__(options, name=name)
        self._lock = threading.Lock()
        self._store: PostgresTables | SqliteTables | None = None
        if django_connections[ALIAS].vendor == "sqlite":
            self.supports_concurrent_writes = False
            self.max_batch_records = MAX_ROWS

    def open(self) -> None:
        with self._lock:
            if self._store is None:
                self._store = self._make_store()
            store = self._store
        store.open()

    def write(self, batch: Batch) -> Written:
        return self._opened().write(batch)

    def probe(self, batch: Batch) -> str:
        return self._opened().probe(batch)

    def forget(self, log_id: str) -> None:
        self._opened().forget(log_id)

    def abort(self) -> None:
        if self._store is not None:
            self._store.abort()

    def close(self) -> None:
        with self._lock:
            store, self._store = self._store, None
        if store is not None:
            store.close()

    def _opened(self) -> PostgresTables | SqliteTables:
        store = self._store
        if store is None:
            raise SinkFault(f'sink "{self.name}" is not open')
        return store

    def _make_store(self) -> PostgresTables | SqliteTables:
        vendor = django_connections[ALIAS].vendor
        days = self.options.dedupe_days if self.options.dedupe_by_id else None
        if vendor == "sqlite":
            return SqliteTables(connect=_connect_sqlite, own_id_days=days)
        if vendor != "postgresql":
            raise SinkFault(f"the records database is {vendor}; PostgreSQL and SQLite are known")
        return PostgresTables(
            connections=Connections(
                conninfo=_conninfo(),
                application_name=f"collector sink {self.name}",
                statement_timeout_s=self.options.statement_timeout_s,
            ),
            own_id_days=days,
        )


def _connect_sqlite() -> sqlite3.Connection:
    """A connection of our own, with everything that the settings ask of Django's."""
    django = django_connections[ALIAS]
    return cast(sqlite3.Connection, django.get_new_connection(django.get_connection_params()))


def _conninfo() -> str:
    """What libpq needs of Django's connection parameters."""
    keywords = {default.keyword.decode() for default in psycopg.pq.Conninfo.get_defaults()}
    params = django_connections[ALIAS].get_connection_params()
    known = {k: str(v) for k, v in params.items() if k in keywords and isinstance(v, str | int)}
    return pg_conninfo.make_conninfo("", **known)
