"""What stores into this installation's records database: the base of such sinks.

The `database` sink stands on it, and internal sinks of apps that keep tables of their own.  Chooses
by the database that the `records` alias names; the work is in `sinks.postgresql` and
`sinks.sqlite`.  `_lock` guards the making of the store; writes go to it without a lock.
"""

from __future__ import annotations

import sqlite3
import threading
from typing import cast

import psycopg
from django.db import connections as django_connections
from psycopg import conninfo as pg_conninfo

from control.ports.merging import MergeSpec, merge_for
from control.ports.tables import TableSpec, table_for
from pipeline.errors import SinkFault
from pipeline.record import Batch
from pipeline.sink import Written
from sinks.base import BaseSink, OptionsT
from sinks.postgresql.connections import Connections
from sinks.postgresql.tables import PostgresTables
from sinks.sqlite.tables import MAX_ROWS, SqliteTables

ALIAS = "records"


class RecordsDatabaseSink(BaseSink[OptionsT]):
    """Stores each record in the table of its type, or adds it up there, exactly once."""

    supports_probe = True
    supports_exactly_once = True
    supports_partial_failure = True

    statement_timeout_s = 60.0
    own_id_days: int | None = None
    """A record whose own id was stored in the last so many days is not again."""

    def __init__(self, options: OptionsT, *, name: str = "") -> None:
        super().__init__(options, name=name)
        self._lock = threading.Lock()
        self._store: PostgresTables | SqliteTables | None = None
        if django_connections[ALIAS].vendor == "sqlite":
            self.supports_concurrent_writes = False
            self.max_batch_records = MAX_ROWS

    def find_table(self, record_type: str) -> TableSpec | None:
        """The table for a type of record; None for a type that this sink does not take."""
        return table_for(record_type)

    def find_merge(self, record_type: str) -> MergeSpec | None:
        """How records of a type are merged; None for a type that is kept record by record."""
        return merge_for(record_type)

    def closing(self, batch: Batch) -> str:
        """A statement that ends each transaction of the batch, after its rows; "" for none."""
        return ""

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
        if vendor == "sqlite":
            return SqliteTables(
                connect=_connect_sqlite,
                own_id_days=self.own_id_days,
                find_table=self.find_table,
                find_merge=self.find_merge,
                closing=self.closing,
            )
        if vendor != "postgresql":
            raise SinkFault(f"the records database is {vendor}; PostgreSQL and SQLite are known")
        return PostgresTables(
            connections=Connections(
                conninfo=_conninfo(),
                application_name=f"collector sink {self.name}",
                statement_timeout_s=self.statement_timeout_s,
            ),
            own_id_days=self.own_id_days,
            find_table=self.find_table,
            find_merge=self.find_merge,
            closing=self.closing,
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
