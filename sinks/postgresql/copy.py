"""One batch into PostgreSQL: proof, COPY per table, COMMIT; a bad row is taken out and told.

Runs in a pipeline's worker thread, on a connection that is this thread's for the while.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from pipeline.errors import PartialFailure, PermanentError
from pipeline.record import Batch
from pipeline.sink import Written
from sinks.postgresql.connections import Connection
from sinks.postgresql.proofs import Proofs
from sinks.postgresql.sqlstate import (
    as_sink_error,
    explain,
    is_missing_partition,
    is_record_fault,
    row_at_fault,
)

MAX_ISOLATED = 16
"""Rows taken out of one batch before it is handed back to be split."""


@dataclass(slots=True, kw_only=True)
class CopyJob:
    """The rows of a batch that go to one table; `indices` are their places in the batch."""

    table: str
    statement: sql.Composed
    rows: list[bytes]
    indices: list[int]
    header: bytes = b""
    trailer: bytes = b""


def copy_statement(table: Sequence[str], columns: Sequence[str], *, binary: bool) -> sql.Composed:
    """COPY into `table` (schema and name, or the name alone)."""
    return sql.SQL("COPY {} ({}) FROM STDIN{}").format(
        sql.Identifier(*table),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(" (FORMAT binary)" if binary else ""),
    )


def store_batch(
    connection: Connection,
    batch: Batch,
    jobs: list[CopyJob],
    *,
    failures: dict[int, str],
    proofs: Proofs | None,
    makes_partitions: bool = False,
) -> Written:
    """Store all rows of all jobs in one transaction.

    PostgreSQL says which line of a COPY it refused; that row is left out and the rest sent again,
    which costs far less than halving the batch.  Raises PartialFailure when rows were left out,
    or came in `failures`.
    """
    while True:
        job: CopyJob | None = None
        try:
            if proofs is None:
                connection.execute("BEGIN")
            elif not proofs.begin(connection, batch, failures):
                connection.execute("ROLLBACK")
                return _already_stored(batch, proofs.failures_of(connection, batch), proofs)
            for job in jobs:
                _copy(connection, job)
            job = None
            connection.execute("COMMIT")
            break
        except psycopg.Error as error:
            _roll_back(connection)
            at_fault = is_record_fault(error) and not (
                makes_partitions and is_missing_partition(error)
            )
            if job is None or not at_fault:
                raise as_sink_error(error, doing=_doing(job)) from error
            row = row_at_fault(error)
            if row is None or row >= len(job.rows) or len(failures) >= MAX_ISOLATED:
                if proofs is not None:
                    proofs.settled(batch)
                raise PermanentError(f"{_doing(job)}: {explain(error)}") from error
            failures[job.indices.pop(row)] = explain(error)
            del job.rows[row]
    if proofs is not None:
        proofs.settled(batch)
        proofs.prune(connection, batch)
    if failures:
        raise PartialFailure(failures)
    return Written(stored=batch.count)


def probe(connection: Connection, jobs: list[CopyJob]) -> None:
    """Send the rows and take them back: what is missing or forbidden shows, nothing stays."""
    job: CopyJob | None = None
    try:
        connection.execute("BEGIN")
        for job in jobs:
            _copy(connection, job)
        connection.execute("ROLLBACK")
    except psycopg.Error as error:
        _roll_back(connection)
        raise as_sink_error(error, doing=_doing(job)) from error


def _copy(connection: Connection, job: CopyJob) -> None:
    if not job.rows:
        return
    with connection.cursor() as cursor, cursor.copy(job.statement) as copy:
        copy.write(b"".join((job.header, *job.rows, job.trailer)))


def _already_stored(batch: Batch, failures: dict[int, str], proofs: Proofs) -> Written:
    proofs.settled(batch)
    if failures:
        raise PartialFailure(failures)
    return Written(stored=0, already_stored=batch.count)


def _doing(job: CopyJob | None) -> str:
    return f"COPY into {job.table}" if job is not None else "the batch's transaction"


def _roll_back(connection: Connection) -> None:
    try:
        connection.execute("ROLLBACK")
    except psycopg.Error:
        pass  # the connection is gone, and the transaction with it; it will not be lent again
