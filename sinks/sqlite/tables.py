"""This installation's record tables on SQLite: bulk inserts, at most 1,000 rows a transaction.

SQLite has one writer at a time, so this sink has one connection and `_lock`, which a worker holds
while it writes: a second one would only wait inside SQLite.  Transactions are short because every
other process that writes to the file waits for them.  `abort` interrupts from any thread.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from itertools import chain

import msgspec

from pipeline.errors import (
    PartialFailure,
    PermanentError,
    RetryableError,
    SinkError,
    SinkFault,
)
from pipeline.record import Batch
from pipeline.sink import Written
from sinks.sqlite.values import convert_rows
from sinks.tablerows import TableRows, rows_by_table

ROWS_A_STATEMENT = 50
_MAX_VARIABLES = 999  # what any build of SQLite takes
MAX_ROWS = 1_000
PROOFS = "collector_batch_proof"
KEPT_BATCHES = 10_000
PRUNE_EVERY = 500

_DDL = (
    f"CREATE TABLE IF NOT EXISTS {PROOFS} (log_id text NOT NULL, number integer NOT NULL, "
    "piece integer NOT NULL, stored_at text NOT NULL DEFAULT CURRENT_TIMESTAMP, failures text, "
    "PRIMARY KEY (log_id, number, piece)) WITHOUT ROWID"
)
_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_NOMEM",
            "SQLITE_INTERRUPT", "SQLITE_PROTOCOL", "SQLITE_SCHEMA")  # fmt: skip
_RECORD = ("SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG", "SQLITE_RANGE")
_BAD_VALUE = (OverflowError, ValueError, TypeError, sqlite3.InterfaceError)

Values = tuple[object, ...]
Piece = list[tuple[str, list[Values], list[int]]]  # statement, rows, places in the batch

_failures_decoder = msgspec.json.Decoder(dict[int, str])


class SqliteTables:
    """Stores batches in the tables that apps registered."""

    def __init__(self, *, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._written = 0

    def open(self) -> None:
        with self._lock:
            self._ready()

    def write(self, batch: Batch) -> Written:
        failures: dict[int, str] = {}
        pieces = _pieces(rows_by_table(batch), failures)
        stored = already = 0
        with self._lock:
            connection = self._ready()
            try:
                for number, piece in enumerate(pieces):
                    count = sum(len(rows) for _, rows, _ in piece)
                    if _store(connection, batch, number, piece, failures):
                        stored += count
                    else:
                        already += count
                self._prune(connection, batch)
            except sqlite3.Error as error:
                self._drop()
                raise as_sink_error(error, doing="writing to the records database") from error
        if failures:
            raise PartialFailure(failures)
        return Written(stored=stored, already_stored=already)

    def probe(self, batch: Batch) -> str:
        tables = rows_by_table(batch)
        with self._lock:
            connection = self._ready()
            try:
                connection.execute("BEGIN IMMEDIATE")
                for statement, rows, _ in (part for piece in _pieces(tables, {}) for part in piece):
                    connection.executemany(statement, rows)
                connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                self._drop()
                raise as_sink_error(error, doing="writing to the records database") from error
        names = ", ".join(table.spec.table for table in tables)
        return f"A marked row was inserted into {names} and taken back."

    def abort(self) -> None:
        connection = self._connection
        if connection is not None:
            try:
                connection.interrupt()
            except sqlite3.ProgrammingError:
                pass  # it was closed meanwhile

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _ready(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                connection = self._connect()
                connection.isolation_level = None  # transactions are begun and ended here
                connection.execute(_DDL)
            except sqlite3.Error as error:
                raise as_sink_error(error, doing="opening the records database") from error
            self._connection = connection
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _prune(self, connection: sqlite3.Connection, batch: Batch) -> None:
        # This sink writes one batch at a time, but one that waits for its next try may be older
        # than the one just stored: hence the wide margin.
        self._written += 1
        if self._written % PRUNE_EVERY == 0:
            connection.execute(
                f"DELETE FROM {PROOFS} WHERE log_id = ? AND number < ?"  # noqa: S608
                " OR stored_at < datetime('now', '-7 days')",
                (batch.log_id, batch.number - KEPT_BATCHES),
            )


def _pieces(tables: list[TableRows], failures: dict[int, str]) -> list[Piece]:
    """The rows in transactions of at most MAX_ROWS; a row with an impossible value is a failure."""
    pieces: list[Piece] = []
    room = 0
    for table in tables:
        spec = table.spec
        names = ", ".join(f'"{column.name}"' for column in spec.columns)
        marks = ", ".join("?" * len(spec.columns))
        statement = f'INSERT INTO "{spec.table}" ({names}) VALUES ({marks})'  # noqa: S608
        try:
            rows, indices = convert_rows(spec.columns, table.rows), table.indices
        except _BAD_VALUE:
            rows, indices = [], []
            for row, index in zip(table.rows, table.indices, strict=True):
                try:
                    rows += convert_rows(spec.columns, [row])
                    indices.append(index)
                except _BAD_VALUE as error:
                    failures[index] = f"{type(error).__name__}: {error}"
        taken = 0
        while taken < len(rows):
            if not room:
                pieces.append([])
                room = MAX_ROWS
            end = taken + room
            pieces[-1].append((statement, rows[taken:end], indices[taken:end]))
            room -= len(pieces[-1][-1][1])
            taken = end
    return pieces


def _store(
    connection: sqlite3.Connection,
    batch: Batch,
    number: int,
    piece: Piece,
    failures: dict[int, str],
) -> bool:
    """One transaction; False when an earlier delivery stored this piece."""
    key = (batch.log_id, batch.number, number)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute(
            f"INSERT OR IGNORE INTO {PROOFS} (log_id, number, piece) VALUES (?, ?, ?)",  # noqa: S608
            key,
        ).rowcount == 0:  # fmt: skip
            row = connection.execute(
                f"SELECT failures FROM {PROOFS}"  # noqa: S608
                " WHERE log_id = ? AND number = ? AND piece = ?",
                key,
            ).fetchone()
            failures.update(_failures_decoder.decode(row[0]) if row and row[0] else {})
            connection.execute("ROLLBACK")
            return False
        refused: dict[int, str] = {}
        for statement, rows, indices in piece:
            connection.execute("SAVEPOINT rows")
            try:
                _insert(connection, statement, rows)
            except (sqlite3.Error, *_BAD_VALUE) as error:
                if isinstance(error, sqlite3.Error) and not _is_record_fault(error):
                    raise
                connection.execute("ROLLBACK TO rows")
                refused |= _one_by_one(connection, statement, rows, indices)
            connection.execute("RELEASE rows")
        if refused:
            connection.execute(
                f"UPDATE {PROOFS} SET failures = ?"  # noqa: S608
                " WHERE log_id = ? AND number = ? AND piece = ?",
                (msgspec.json.encode(refused).decode(), *key),
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    failures.update(refused)
    return True


def _insert(connection: sqlite3.Connection, statement: str, rows: list[Values]) -> None:
    """Insert rows, many with each statement.

    The driver lets go of the interpreter lock for every step: with a row a step, the request
    threads take it from this one a thousand times a transaction.
    """
    most = min(ROWS_A_STATEMENT, _MAX_VARIABLES // len(rows[0])) if rows else 1
    whole = len(rows) - len(rows) % most
    if whole:
        head, marks = statement.rsplit(" VALUES ", 1)
        many = f"{head} VALUES {', '.join([marks] * most)}"
        for start in range(0, whole, most):
            connection.execute(many, list(chain.from_iterable(rows[start : start + most])))
    if whole < len(rows):
        connection.executemany(statement, rows[whole:])


def _one_by_one(
    connection: sqlite3.Connection, statement: str, rows: list[Values], indices: list[int]
) -> dict[int, str]:
    """Insert what can be; a refused row undoes only itself."""
    refused: dict[int, str] = {}
    for row, index in zip(rows, indices, strict=True):
        try:
            connection.execute(statement, row)
        except sqlite3.Error as error:
            if not _is_record_fault(error):
                raise
            refused[index] = str(error)
        except _BAD_VALUE as error:
            refused[index] = f"{type(error).__name__}: {error}"
    return refused


def _is_record_fault(error: sqlite3.Error) -> bool:
    if isinstance(error, sqlite3.InterfaceError | sqlite3.DataError):
        return True
    return str(getattr(error, "sqlite_errorname", "")).startswith(_RECORD)


def as_sink_error(error: sqlite3.Error, *, doing: str) -> SinkError:
    """Whose fault an SQLite error is: "locked" and a full disk pass, a missing table does not."""
    name = str(getattr(error, "sqlite_errorname", ""))
    text = f"{doing}: {error}"
    if name.startswith(_PASSING):
        return RetryableError(text)
    if _is_record_fault(error):
        return PermanentError(text)
    return SinkFault(text)
