"""This installation's record tables on PostgreSQL: COPY into day partitions, and merges.

`write` runs in the pipeline's worker threads, each with a connection of its own while it writes.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import psycopg
from django.db import Error as DatabaseProblem

from control import partitions
from control.ports.merging import merge_for
from control.ports.tables import table_for
from pipeline.errors import PartialFailure, PermanentError, RetryableError, SinkError, SinkFault
from pipeline.record import Batch
from pipeline.sink import Written
from sinks.postgresql.connections import Connections
from sinks.postgresql.copy import Keeping, probe, store_batch
from sinks.postgresql.job import CopyJob, copy_statement
from sinks.postgresql.merging import Merging
from sinks.postgresql.ownids import OwnIdTable
from sinks.postgresql.packer import HEADER, TRAILER, RowError, pack_rows
from sinks.postgresql.poison import PoisonRate, most_refused
from sinks.postgresql.proofs import Proofs
from sinks.postgresql.sqlstate import as_sink_error
from sinks.tablerows import FindMerge, FindTable, TableRows, rows_by_table


class PostgresTables:
    """Stores batches in the tables that apps registered.

    With `own_id_days`, a record whose own id was stored in the last so many days is not again.
    What `closing` answers is the last statement of a batch's transaction.
    """

    def __init__(
        self,
        *,
        connections: Connections,
        own_id_days: int | None = None,
        find_table: FindTable = table_for,
        find_merge: FindMerge = merge_for,
        closing: Callable[[Batch], str] | None = None,
    ) -> None:
        self._connections = connections
        self._find_table = find_table
        self._find_merge = find_merge
        self._proofs = Proofs()
        self._own_ids = OwnIdTable(days=own_id_days) if own_id_days else None
        self._keeping = Keeping(
            proofs=self._proofs,
            own_ids=self._own_ids,
            poison=PoisonRate(),
            makes_partitions=True,
            merging=Merging(),
            closing=closing,
        )
        self._prepared = False

    def open(self) -> None:
        if self._prepared:
            return
        with self._connections.lend() as connection:
            self._proofs.prepare(connection)
            if self._own_ids is not None:
                self._own_ids.prepare(connection)
        self._prepared = True

    def write(self, batch: Batch) -> Written:
        self.open()
        failures: dict[int, str] = {}
        tables, merges = rows_by_table(batch, self._find_table, self._find_merge)
        jobs = [_job(table, failures) for table in tables]
        self._ensure_days(batch, tables)
        try:
            with self._connections.lend() as connection:
                return store_batch(
                    connection,
                    batch,
                    jobs,
                    merges=merges,
                    failures=failures,
                    keeping=self._keeping,
                )
        except PartialFailure:
            raise
        except SinkError as error:
            if isinstance(error, SinkFault):
                self._prepared = False  # a table of this sink's own may have been taken away
            for table in tables:  # retention or another hand may have taken a partition away
                partitions.forget(table.spec.table)
            raise

    def probe(self, batch: Batch) -> str:
        tables, merges = rows_by_table(batch, self._find_table, self._find_merge)
        self._ensure_days(batch, tables)
        with self._connections.lend() as connection:
            probe(connection, [_job(table, {}) for table in tables], merges)
        names = ", ".join(
            [*(table.spec.table for table in tables), *chain(*(job.tables for job in merges))]
        )
        return f"A marked row was copied into {names} and taken back."

    def forget(self, log_id: str) -> None:
        with self._connections.lend() as connection:
            self._proofs.forget(connection, log_id)

    def abort(self) -> None:
        self._connections.abort()

    def close(self) -> None:
        self._connections.close()
        self._prepared = False

    def _ensure_days(self, batch: Batch, tables: list[TableRows]) -> None:
        if not tables:
            return
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
            if len(failures) >= most_refused(len(table.rows)):
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
