"""Proofs: one row per stored batch, written first in the transaction that stores it.

A batch that is sent again, because the answer to COMMIT was lost or a second process delivers it,
waits on the first one's key and finds itself stored already.  The row also keeps which records of
the batch were refused, so that the second delivery reports the same.

Whoever hears of refused records either dead-letters them or, where it takes the sink to be at
fault, sends the batch again: to the same sink object, which therefore tries them again.  A
deliverer that comes later cannot know what became of them and is told the same as the first.

A proof goes when nobody can send its batch again: below the batch's `proofs_below`, which the log's
checkpoint has passed, or with its whole log by `forget`.

`_lock` guards `_pruned` and `_told`; statements run outside it, in the pipeline's worker threads.
"""

from __future__ import annotations

import threading

import msgspec
import psycopg
from psycopg import errors as pg
from psycopg import sql

from pipeline.errors import SinkFault
from pipeline.record import Batch
from sinks.postgresql.connections import Connection
from sinks.postgresql.sqlstate import as_sink_error

TABLE = "collector_batch_proof"
DDL = (
    f"CREATE TABLE IF NOT EXISTS {TABLE} (log_id text NOT NULL, number bigint NOT NULL, "
    "sink text NOT NULL, stored_at timestamptz NOT NULL DEFAULT now(), failures text, "
    "PRIMARY KEY (log_id, number))"
)
RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
KEPT_DAYS = 90
"""For proofs of logs that were lost rather than finished, so that nobody told the sink to forget.

A log may wait weeks for its host to come back and must find its proofs then; what waits for three
months is taken for gone.  A lost log leaves at most some thousands of rows."""
PRUNE_EVERY = 200
"""Proofs that may be deleted are left until there are so many: one statement for all of them."""
_LOGS_FOLLOWED = 1_000
_TOLD_FOLLOWED = 10_000

_failures_decoder = msgspec.json.Decoder(dict[int, str])


class ProofsForbidden(SinkFault):
    """This user may neither use the table of proofs nor make it."""


class Proofs:
    """The proofs of one sink object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Up to where the proofs of a log were deleted, for each sink.
        self._pruned: dict[tuple[str, str], int] = {}
        # Batches that this object stored without some records, and said so.
        self._told: dict[tuple[str, int], None] = {}

    def prepare(self, connection: Connection) -> None:
        """Make the table where it is missing, and drop proofs of logs long gone.

        Raises ProofsForbidden when this user has no right to.
        """
        try:
            self._prepare(connection)
        except (pg.InsufficientPrivilege, pg.InvalidSchemaName) as error:
            raise ProofsForbidden(
                f"this user may not make or use the table {TABLE}, which keeps a batch from being "
                f"stored twice; give it {', '.join(RIGHTS)} on it, or make the table with: {DDL}"
            ) from error
        except psycopg.Error as error:
            raise as_sink_error(error, doing=f"preparing {TABLE}") from error

    def _prepare(self, connection: Connection) -> None:
        row = connection.execute("SELECT to_regclass(%s)", [TABLE]).fetchone()
        if row is None or row[0] is None:
            try:
                connection.execute(sql.SQL(DDL))
            except (pg.UniqueViolation, pg.DuplicateTable, pg.DuplicateObject):
                pass  # another process made it at the same moment
        for right in RIGHTS:
            held = connection.execute("SELECT has_table_privilege(%s, %s)", [TABLE, right])
            if held.fetchone() != (True,):
                raise pg.InsufficientPrivilege(f"{right} on {TABLE}")
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE stored_at < now() - make_interval(days => {})").format(
                sql.Identifier(TABLE), sql.Literal(KEPT_DAYS)
            )
        )

    def begin(self, connection: Connection, batch: Batch, failures: dict[int, str]) -> bool:
        """Open the transaction with the proof; False when the batch is stored already.

        Its answer must have come before anything that stores is sent: who holds the key then is
        known, however late the rest arrives at the server.
        """
        cursor = connection.execute(
            sql.SQL(
                "BEGIN; INSERT INTO {} (log_id, number, sink, failures) VALUES ({}, {}, {}, {})"
                " ON CONFLICT DO NOTHING"
            ).format(
                sql.Identifier(TABLE),
                sql.Literal(batch.log_id),
                sql.Literal(batch.number),
                sql.Literal(batch.sink),
                sql.Literal(_encode(failures)),
            )
        )
        cursor.nextset()
        return cursor.rowcount == 1

    def refused(self, connection: Connection, batch: Batch, failures: dict[int, str]) -> None:
        """Keep in the open transaction's proof which records were refused since `begin`."""
        connection.execute(
            sql.SQL("UPDATE {} SET failures = {} WHERE log_id = {} AND number = {}").format(
                sql.Identifier(TABLE),
                sql.Literal(_encode(failures)),
                sql.Literal(batch.log_id),
                sql.Literal(batch.number),
            )
        )

    def told(self, batch: Batch) -> None:
        """The batch is stored, and its deliverer is about to hear which records are not."""
        with self._lock:
            self._told[(batch.log_id, batch.number)] = None
            if len(self._told) > _TOLD_FOLLOWED:
                del self._told[next(iter(self._told))]

    def was_told(self, batch: Batch) -> bool:
        """Whether the deliverer heard of refused records and dead-lettered none of them."""
        with self._lock:
            return (batch.log_id, batch.number) in self._told

    def failures_of(
        self, connection: Connection, batch: Batch, *, lock: bool = False
    ) -> dict[int, str]:
        """What an earlier delivery of the batch reported as refused."""
        row = connection.execute(
            sql.SQL("SELECT failures FROM {} WHERE log_id = {} AND number = {}{}").format(
                sql.Identifier(TABLE),
                sql.Literal(batch.log_id),
                sql.Literal(batch.number),
                sql.SQL(" FOR UPDATE" if lock else ""),
            )
        ).fetchone()
        return _failures_decoder.decode(str(row[0])) if row is not None and row[0] else {}

    def prune(self, connection: Connection, batch: Batch) -> None:
        """Now and then drop this sink's proofs of batches that nobody can send again."""
        log, below = (batch.log_id, batch.sink), batch.proofs_below
        with self._lock:
            if below - self._pruned.get(log, 0) < PRUNE_EVERY:
                return
            self._pruned.pop(log, None)
            self._pruned[log] = below
            if len(self._pruned) > _LOGS_FOLLOWED:
                del self._pruned[next(iter(self._pruned))]
        try:
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE log_id = {} AND sink = {} AND number < {}").format(
                    sql.Identifier(TABLE), *map(sql.Literal, (*log, below))
                )
            )
        except psycopg.Error:
            pass  # the batch is stored; the next prune covers these rows too

    def forget(self, connection: Connection, log_id: str) -> None:
        """Drop every proof of a log that is finished and removed."""
        with self._lock:
            for log in [log for log in self._pruned if log[0] == log_id]:
                del self._pruned[log]
        try:
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE log_id = {}").format(
                    sql.Identifier(TABLE), sql.Literal(log_id)
                )
            )
        except psycopg.Error as error:
            raise as_sink_error(error, doing=f"deleting proofs of log {log_id}") from error


def _encode(failures: dict[int, str]) -> str | None:
    return msgspec.json.encode(failures).decode() if failures else None
