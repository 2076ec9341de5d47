"""What is kept beside the records in SQLite: proofs of stored pieces, and the ids records brought.

A batch is stored in pieces of their own transactions, each with a proof: a batch that is sent again
finds its pieces.  Whoever hears of refused records and sends the batch again, to the same sink
object, has dead-lettered none: they are tried again.  A later deliverer is told the same.

Called with the sink's lock held, inside its transactions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from pipeline.record import Batch
from sinks.recordids import Key

PROOFS = "collector_batch_proof"
OWN_IDS = "collector_record_id"
KEPT_DAYS = 90
"""For proofs of logs that were lost; what waits for its host so long is taken for gone."""
PRUNE_EVERY = 200
PRUNE_IDS_EVERY = 20_000
_ROWS_A_STATEMENT = 100
_LOGS_FOLLOWED = 1_000
_TOLD_FOLLOWED = 10_000

_PROOFS_DDL = (
    f"CREATE TABLE IF NOT EXISTS {PROOFS} (log_id text NOT NULL, number integer NOT NULL, "
    "piece integer NOT NULL, stored_at text NOT NULL DEFAULT CURRENT_TIMESTAMP, failures text, "
    "sink text NOT NULL DEFAULT '', PRIMARY KEY (log_id, number, piece)) WITHOUT ROWID"
)
# Tables made before there was the column: their rows stay until their log is finished.
_SINK_DDL = f"ALTER TABLE {PROOFS} ADD COLUMN sink text NOT NULL DEFAULT ''"
_OWN_IDS_DDL = (
    f"CREATE TABLE IF NOT EXISTS {OWN_IDS} (sink text NOT NULL, tenant text NOT NULL, "
    "type text NOT NULL, id text NOT NULL, stored_at text NOT NULL DEFAULT CURRENT_TIMESTAMP, "
    "PRIMARY KEY (sink, tenant, type, id)) WITHOUT ROWID"
)
_OWN_IDS_INDEX = f"CREATE INDEX IF NOT EXISTS {OWN_IDS}_stored_at ON {OWN_IDS} (stored_at)"

_failures_decoder = msgspec.json.Decoder(dict[int, str])


class PieceProofs:
    """The proofs of one sink object."""

    def __init__(self) -> None:
        # Up to where the proofs of a log were deleted, for each sink.
        self._pruned: dict[tuple[str, str], int] = {}
        # Batches that this object stored without some records, and said so.
        self._told: dict[tuple[str, int], None] = {}

    def prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute(_PROOFS_DDL)
        self._add_column(connection)
        connection.execute(
            f"DELETE FROM {PROOFS} WHERE stored_at < datetime('now', ?)",  # noqa: S608
            (f"-{KEPT_DAYS} days",),
        )

    def _add_column(self, connection: sqlite3.Connection) -> None:
        """Several sinks' batches of one log may stand in the table: each prunes its own."""
        if _has_sink(connection):
            return
        try:
            connection.execute(_SINK_DDL)
        except sqlite3.OperationalError:
            if not _has_sink(connection):  # else another process added it at the same moment
                raise

    def claim(self, connection: sqlite3.Connection, batch: Batch, piece: int) -> bool:
        """Write the piece's proof; False when it is stored already."""
        cursor = connection.execute(
            f"INSERT OR IGNORE INTO {PROOFS} (log_id, number, piece, sink)"  # noqa: S608
            " VALUES (?, ?, ?, ?)",
            (batch.log_id, batch.number, piece, batch.sink),
        )
        return cursor.rowcount == 1

    def failures_of(
        self, connection: sqlite3.Connection, batch: Batch, piece: int
    ) -> dict[int, str]:
        """What an earlier delivery reported as refused."""
        row = connection.execute(
            f"SELECT failures FROM {PROOFS}"  # noqa: S608
            " WHERE log_id = ? AND number = ? AND piece = ?",
            (batch.log_id, batch.number, piece),
        ).fetchone()
        return _failures_decoder.decode(row[0]) if row and row[0] else {}

    def told(self, batch: Batch) -> None:
        """The batch is stored, and its deliverer is about to hear which records are not."""
        self._told[(batch.log_id, batch.number)] = None
        if len(self._told) > _TOLD_FOLLOWED:
            del self._told[next(iter(self._told))]

    def was_told(self, batch: Batch) -> bool:
        """Whether the deliverer heard of refused records and dead-lettered none of them."""
        return (batch.log_id, batch.number) in self._told

    def refused(
        self, connection: sqlite3.Connection, batch: Batch, piece: int, failures: dict[int, str]
    ) -> None:
        """Keep in the open transaction's proof which records were refused."""
        connection.execute(
            f"UPDATE {PROOFS} SET failures = ?"  # noqa: S608
            " WHERE log_id = ? AND number = ? AND piece = ?",
            (
                msgspec.json.encode(failures).decode() if failures else None,
                batch.log_id,
                batch.number,
                piece,
            ),
        )

    def prune(self, connection: sqlite3.Connection, batch: Batch) -> None:
        """Now and then drop this sink's proofs of batches that nobody can send again."""
        log, below = (batch.log_id, batch.sink), batch.proofs_below
        if below - self._pruned.get(log, 0) < PRUNE_EVERY:
            return
        connection.execute(
            f"DELETE FROM {PROOFS} WHERE log_id = ? AND sink = ? AND number < ?",  # noqa: S608
            (*log, below),
        )
        self._pruned.pop(log, None)
        self._pruned[log] = below
        if len(self._pruned) > _LOGS_FOLLOWED:
            del self._pruned[next(iter(self._pruned))]

    def forget(self, connection: sqlite3.Connection, log_id: str) -> None:
        """Drop every proof of a log that is finished and removed."""
        connection.execute(f"DELETE FROM {PROOFS} WHERE log_id = ?", (log_id,))  # noqa: S608
        for log in [log for log in self._pruned if log[0] == log_id]:
            del self._pruned[log]


def _has_sink(connection: sqlite3.Connection) -> bool:
    return any(row[1] == "sink" for row in connection.execute(f"PRAGMA table_info({PROOFS})"))


class OwnIdRows:
    """The ids that records brought, kept for `days`."""

    def __init__(self, *, days: int) -> None:
        self._days = days
        self._claimed = PRUNE_IDS_EVERY

    def prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute(_OWN_IDS_DDL)
        connection.execute(_OWN_IDS_INDEX)

    def claim(self, connection: sqlite3.Connection, sink: str, keys: Iterable[Key]) -> set[Key]:
        """Write these ids in the open transaction; returns those that were there already."""
        given = list(keys)
        known: set[Key] = set()
        for start in range(0, len(given), _ROWS_A_STATEMENT):
            some = given[start : start + _ROWS_A_STATEMENT]
            rows = connection.execute(
                f"INSERT OR IGNORE INTO {OWN_IDS} (sink, tenant, type, id) VALUES "  # noqa: S608
                + ", ".join(["(?, ?, ?, ?)"] * len(some))
                + " RETURNING tenant, type, id",
                [value for key in some for value in (sink, *key)],
            ).fetchall()
            if len(rows) < len(some):
                known |= set(some) - set(rows)
        self._claimed += len(given)
        return known

    def let_go(self, connection: sqlite3.Connection, sink: str, keys: Iterable[Key]) -> None:
        """Take ids back whose records were refused, so that a mended record finds its id free."""
        connection.executemany(
            f"DELETE FROM {OWN_IDS}"  # noqa: S608
            " WHERE sink = ? AND tenant = ? AND type = ? AND id = ?",
            [(sink, *key) for key in keys],
        )

    def prune(self, connection: sqlite3.Connection, batch: Batch) -> None:
        """Now and then drop this sink's ids that are old enough, some at a time."""
        if self._claimed < PRUNE_IDS_EVERY:
            return
        self._claimed = 0
        connection.execute(
            f"DELETE FROM {OWN_IDS} WHERE (sink, tenant, type, id) IN (SELECT sink, tenant, type,"  # noqa: S608
            f" id FROM {OWN_IDS} WHERE stored_at < datetime('now', ?) AND sink = ? LIMIT ?)",
            (f"-{self._days} days", batch.sink, 4 * PRUNE_IDS_EVERY),
        )
