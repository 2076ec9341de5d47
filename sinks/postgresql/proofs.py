"""Proofs: one row per stored batch, written in the transaction that stores it.

A batch that is sent again, because the answer to COMMIT was lost or a second process delivers it,
waits on the first one's key and finds itself stored already.  The row also keeps which records of
the batch were refused, so that the second delivery reports the same.

`_lock` guards `_unsettled` and `_since_prune`; statements run outside it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

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
KEPT_BATCHES = 10_000
KEPT_DAYS = 7
PRUNE_EVERY = 500
UNSETTLED_S = 6 * 3600.0
"""A batch that was not tried for so long was given up: the engine does not tell the sink."""
MAX_UNSETTLED = 10_000

_failures_decoder = msgspec.json.Decoder(dict[int, str])


class Proofs:
    """The proofs of one sink object."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        # When each was last tried, in that order.
        self._unsettled: dict[int, float] = {}
        self._since_prune = 0

    def prepare(self, connection: Connection) -> None:
        """Make the table where it is missing, and drop the proofs of logs long gone."""
        try:
            self._prepare(connection)
        except pg.InsufficientPrivilege as error:
            raise SinkFault(
                f"this user may not make or use the table {TABLE}, which keeps a batch from being "
                f"stored twice; give it the right, or make the table with: {DDL}"
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
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE stored_at < now() - make_interval(days => {})").format(
                sql.Identifier(TABLE), sql.Literal(KEPT_DAYS)
            )
        )

    def begin(self, connection: Connection, batch: Batch, failures: dict[int, str]) -> bool:
        """Open the transaction with the proof; False when the batch is stored already."""
        with self._lock:
            self._unsettled.pop(batch.number, None)
            self._unsettled[batch.number] = self._monotonic()
            if len(self._unsettled) > MAX_UNSETTLED:
                del self._unsettled[next(iter(self._unsettled))]
        cursor = connection.execute(
            sql.SQL(
                "BEGIN; INSERT INTO {} (log_id, number, sink, failures) VALUES ({}, {}, {}, {})"
                " ON CONFLICT DO NOTHING"
            ).format(
                sql.Identifier(TABLE),
                sql.Literal(batch.log_id),
                sql.Literal(batch.number),
                sql.Literal(batch.sink),
                sql.Literal(msgspec.json.encode(failures).decode() if failures else None),
            )
        )
        cursor.nextset()
        return cursor.rowcount == 1

    def failures_of(self, connection: Connection, batch: Batch) -> dict[int, str]:
        """What an earlier delivery of the batch reported as refused."""
        row = connection.execute(
            sql.SQL("SELECT failures FROM {} WHERE log_id = {} AND number = {}").format(
                sql.Identifier(TABLE), sql.Literal(batch.log_id), sql.Literal(batch.number)
            )
        ).fetchone()
        return _failures_decoder.decode(str(row[0])) if row is not None and row[0] else {}

    def settled(self, batch: Batch) -> None:
        """The engine will not send this batch again."""
        with self._lock:
            self._unsettled.pop(batch.number, None)

    def prune(self, connection: Connection, batch: Batch) -> None:
        """Now and then drop this sink's proofs far below any batch that may still be sent again."""
        with self._lock:
            self._since_prune += 1
            if self._since_prune < PRUNE_EVERY:
                return
            self._since_prune = 0
            self._forget_given_up()
            lowest = min(self._unsettled, default=batch.number)
        try:
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE log_id = {} AND sink = {} AND number < {}").format(
                    sql.Identifier(TABLE),
                    sql.Literal(batch.log_id),
                    sql.Literal(batch.sink),
                    sql.Literal(lowest - KEPT_BATCHES),
                )
            )
        except psycopg.Error:
            pass  # the batch is stored; the next prune covers these rows too

    def _forget_given_up(self) -> None:
        """Called with `_lock` held."""
        due = self._monotonic() - UNSETTLED_S
        for number, tried_at in list(self._unsettled.items()):
            if tried_at > due:
                break
            del self._unsettled[number]
