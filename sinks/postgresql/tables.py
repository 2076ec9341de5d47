"""This installation's record tables on PostgreSQL: binary COPY into day partitions.

`write` runs in the pipeline's worker threads, each with a connection of its own while it writes.
"""

from __future__ import annotations

import psycopg
from django.db import Error as DatabaseProblem

from control import partitions
from pipeline.errors import PermanentError, RetryableError, SinkError
from pipeline.record import Batch
from pipeline.sink import Written
from sinks.postgresql.connections import Connections
from sinks.postgresql.copy import MAX_ISOLATED, CopyJob, copy_statement, probe, store_batch
from sinks.postgresql.packer import HEADER, TRAILER, RowError, pack_rows
from sinks.postgresql.proofs import Proofs
from sinks.postgresql.sqlstate import as_sink_error
from sinks.tablerows import TableRows, rows_by_table


class PostgresTables:
    """Stores batches in the tables that apps registered."""

    def __init__(self, *, connections: Connections) -> None:
        self._connections = connections
        self._proofs = Proofs()
        self._prepared = False

    def open(self) -> None:
        if self._prepared:
            return
        with self._connections.lend() as connection:
            self._proofs.prepare(connection)
        self._prepared = True

    def write(self, batch: Batch) -> Written:
        failures: dict[int, str] = {}
        tables = rows_by_table(batch)
        jobs = [_job(table, failures) for table in tables]
        self._ensure_days(batch, tables)
        try:
            with self._connections.lend() as connection:
                return store_batch(
                    connection,
                    batch,
                    jobs,
                    failures=failures,
                    proofs=self._proofs,
                    makes_partitions=True,
                )
        except SinkError:
            for table in tables:  # retention or another hand may have taken a partition away
                partitions.forget(table.spec.table)
            raise

    def probe(self, batch: Batch) -> str:
        tables = rows_by_table(batch)
        self._ensure_days(batch, tables)
        with self._connections.lend() as connection:
            probe(connection, [_job(table, {}) for table in tables])
        names = ", ".join(table.spec.table for table in tables)
        return f"A marked row was copied into {names} and taken back."

    def abort(self) -> None:
        self._connections.abort()

    def close(self) -> None:
        self._connections.close()
        self._prepared = False

    def _ensure_days(self, batch: Batch, tables: list[TableRows]) -> None:
        # Ids follow the time of arrival and ascend within a part.
        ids = [r.id for part in batch.parts for r in (part.records[0], part.records[-1])]
        try:
            for table in tables:
                partitions.ensure_range(table.spec.table, min(ids), max(ids))
        except DatabaseProblem as error:
            doing = "making the day's partition"
            if isinstance(error.__cause__, psycopg.Error):
                raise as_sink_error(error.__cause__, doing=doing) from error
            raise RetryableError(f"{doing}: {error}") from error


def _job(table: TableRows, failures: dict[int, str]) -> CopyJob:
    """The table's rows packed; a row that no column type can hold goes to `failures`."""
    spec = table.spec
    while True:
        try:
            packed = pack_rows(spec.columns, table.rows)
            break
        except RowError as error:
            if len(failures) >= MAX_ISOLATED:
                raise PermanentError(f"rows of {spec.table}: {error.reason}") from error
            failures[table.indices.pop(error.index)] = error.reason
            del table.rows[error.index]
    return CopyJob(
        table=spec.table,
        statement=copy_statement([spec.table], [c.name for c in spec.columns], binary=True),
        rows=packed,
        indices=table.indices,
        header=HEADER,
        trailer=TRAILER,
    )
