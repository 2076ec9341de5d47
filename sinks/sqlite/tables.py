"""This installation's record tables on SQLite: bulk inserts, at most 1,000 rows a transaction.

SQLite has one writer at a time, so this sink has one connection and `_lock`, which a worker holds
while it writes: a second one would only wait inside SQLite.  Transactions are short because every
other process that writes to the file waits for them.  `abort` interrupts from any thread: the
statement that runs, the wait for another process's lock, and what would come next.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from itertools import chain

from control.ports.merging import merge_for
from control.ports.tables import table_for
from pipeline.errors import PartialFailure, RetryableError, SinkFault
from pipeline.record import Batch
from pipeline.sink import Written
from sinks.merging import MergeJob
from sinks.recordids import OwnIds
from sinks.sqlite.beside import PROOFS, OwnIdRows, PieceProofs
from sinks.sqlite.errors import BAD_VALUE, as_sink_error, is_record_fault
from sinks.sqlite.merging import Merging
from sinks.sqlite.pieces import MAX_ROWS, Piece, Values, chosen, cut
from sinks.tablerows import FindMerge, FindTable, rows_by_table

__all__ = ["MAX_ROWS", "PROOFS", "SqliteTables"]

ROWS_A_STATEMENT = 50
_MAX_VARIABLES = 999  # what any build of SQLite takes
LOOK_EVERY_MS = 100
"""How long SQLite itself waits for another's lock before this sink looks for an abort."""


class SqliteTables:
    """Stores batches in the tables that apps registered.

    With `own_id_days`, a record whose own id was stored in the last so many days is not again.
    What `closing` answers is the last statement of each of a batch's transactions.
    """

    def __init__(
        self,
        *,
        connect: Callable[[], sqlite3.Connection],
        own_id_days: int | None = None,
        find_table: FindTable = table_for,
        find_merge: FindMerge = merge_for,
        closing: Callable[[Batch], str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._find_table = find_table
        self._find_merge = find_merge
        self._closing = closing
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._proofs = PieceProofs()
        self._own_ids = OwnIdRows(days=own_id_days) if own_id_days else None
        self._merging = Merging()
        self._busy_s = 0.0
        self._aborts = 0

    def open(self) -> None:
        with self._lock:
            self._ready()

    def write(self, batch: Batch) -> Written:
        failures: dict[int, str] = {}
        tables, merges = rows_by_table(batch, self._find_table, self._find_merge)
        pieces = cut(tables, failures)
        heard: dict[int, str] = {}
        already = 0
        with self._lock:
            aborts = self._aborts
            connection = self._ready()
            try:
                # What is merged goes first, as the one piece that may fail as a whole: nothing
                # of the batch is stored yet then, and its halves may be sent in its place.
                if merges:
                    already += self._merge(connection, batch, merges, aborts)
                for number, piece in enumerate(pieces, 1 if merges else 0):
                    already += self._store(
                        connection, batch, number, piece, failures, heard, aborts
                    )
                if failures and not heard:
                    self._proofs.told(batch)
                self._proofs.prune(connection, batch)
                if self._own_ids is not None:
                    self._own_ids.prune(connection, batch)
            except sqlite3.Error as error:
                self._drop()
                raise as_sink_error(error, doing="writing to the records database") from error
        if failures:
            raise PartialFailure(failures, already_stored=already)
        return Written(stored=batch.count - already, already_stored=already)

    def forget(self, log_id: str) -> None:
        with self._lock:
            connection = self._ready()
            try:
                self._proofs.forget(connection, log_id)
            except sqlite3.Error as error:
                self._drop()
                raise as_sink_error(error, doing=f"deleting proofs of log {log_id}") from error

    def probe(self, batch: Batch) -> str:
        tables, merges = rows_by_table(batch, self._find_table, self._find_merge)
        with self._lock:
            aborts = self._aborts
            connection = self._ready()
            try:
                self._begin(connection, aborts)
                for statement, rows, _ in (part for piece in cut(tables, {}) for part in piece):
                    connection.executemany(statement, rows)
                for job in merges:
                    self._merging.store(connection, job, look=lambda: None)
                connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                self._drop()
                raise as_sink_error(error, doing="writing to the records database") from error
        names = ", ".join(
            [*(table.spec.table for table in tables), *chain(*(job.tables for job in merges))]
        )
        return f"A marked row was inserted into {names} and taken back."

    def abort(self) -> None:
        self._aborts += 1
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
                self._proofs.prepare(connection)
                if self._own_ids is not None:
                    self._own_ids.prepare(connection)
                self._busy_s = connection.execute("PRAGMA busy_timeout").fetchone()[0] / 1000
                connection.execute(f"PRAGMA busy_timeout = {LOOK_EVERY_MS}")
            except sqlite3.Error as error:
                raise as_sink_error(error, doing="opening the records database") from error
            self._connection = connection
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _begin(self, connection: sqlite3.Connection, aborts: int) -> None:
        """Begin to write; waits for another process as long as the settings allow."""
        due = self._monotonic() + self._busy_s
        while True:
            self._look_for_abort(aborts)
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname != "SQLITE_BUSY" or self._monotonic() >= due:
                    raise

    def _look_for_abort(self, aborts: int) -> None:
        if self._aborts != aborts:
            raise RetryableError("writing to the records database was aborted")

    def _store(
        self,
        connection: sqlite3.Connection,
        batch: Batch,
        number: int,
        piece: Piece,
        failures: dict[int, str],
        heard: dict[int, str],
        aborts: int,
    ) -> int:
        """One transaction; returns how many of its records were stored before.

        `heard` is what an earlier deliverer's failures were, if there was one.
        """
        count = sum(len(rows) for _, rows, _ in piece)
        self._begin(connection, aborts)
        try:
            known: dict[int, str] = {}
            repeated = not self._proofs.claim(connection, batch, number)
            if repeated:
                known = self._proofs.failures_of(connection, batch, number)
                if not known or not self._proofs.was_told(batch):
                    failures.update(known)
                    heard.update(known)
                    connection.execute("ROLLBACK")
                    return count - len(known)
                piece = chosen(piece, known.__contains__)
            refused: dict[int, str] = {}
            already = self._insert_new(connection, batch, piece, refused, aborts)
            if refused or known:
                self._proofs.refused(connection, batch, number, refused)
            self._end(connection, batch)
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        failures.update(refused)
        return already + (count - len(known) if repeated else 0)

    def _merge(
        self, connection: sqlite3.Connection, batch: Batch, merges: list[MergeJob], aborts: int
    ) -> int:
        """Add up all that is merged, in one transaction; returns how many records were before."""
        count = sum(job.count for job in merges)
        self._begin(connection, aborts)
        try:
            if not self._proofs.claim(connection, batch, 0):
                connection.execute("ROLLBACK")
                return count
            left_out: set[int] = set()
            if self._own_ids is not None:
                ids = OwnIds.of(batch, chain.from_iterable(job.indices for job in merges))
                known = self._own_ids.claim(connection, batch.sink, ids.first)
                left_out = ids.stored_before(known)
            for job in merges:
                self._merging.store(
                    connection, job.without(left_out), look=lambda: self._look_for_abort(aborts)
                )
            self._end(connection, batch)
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return len(left_out)

    def _end(self, connection: sqlite3.Connection, batch: Batch) -> None:
        if self._closing is not None and (statement := self._closing(batch)):
            connection.execute(statement)
        connection.execute("COMMIT")

    def _insert_new(
        self,
        connection: sqlite3.Connection,
        batch: Batch,
        piece: Piece,
        refused: dict[int, str],
        aborts: int,
    ) -> int:
        """Insert the rows whose own ids are new; returns how many are not."""
        if self._own_ids is None:
            self._insert(connection, piece, refused, aborts)
            return 0
        ids = OwnIds.of(batch, chain.from_iterable(indices for _, _, indices in piece))
        known = self._own_ids.claim(connection, batch.sink, ids.first)
        left_out = ids.stored_before(known)
        self._insert(connection, chosen(piece, lambda i: i not in left_out), refused, aborts)
        bare = {ids.key_of[index] for index in refused if index in ids.key_of}
        last = set(refused)
        while successors := ids.successors(last, known):
            self._insert(connection, chosen(piece, successors.__contains__), refused, aborts)
            left_out -= successors.keys()
            bare -= {key for index, key in successors.items() if index not in refused}
            last = successors.keys() & refused.keys()
        if bare:
            self._own_ids.let_go(connection, batch.sink, bare)
        return len(left_out)

    def _insert(
        self, connection: sqlite3.Connection, piece: Piece, refused: dict[int, str], aborts: int
    ) -> None:
        """Insert rows, many with each statement; a statement that is refused goes row by row.

        The driver lets go of the interpreter lock for every step: with a row a step, the request
        threads take it from this one a thousand times a transaction.
        """
        for statement, rows, indices in piece:
            if not rows:
                continue
            most = min(ROWS_A_STATEMENT, _MAX_VARIABLES // len(rows[0]))
            head, marks = statement.rsplit(" VALUES ", 1)
            for start in range(0, len(rows), most):
                self._look_for_abort(aborts)
                some = rows[start : start + most]
                many = f"{head} VALUES {', '.join([marks] * len(some))}"
                try:
                    connection.execute(many, list(chain.from_iterable(some)))
                except (sqlite3.Error, *BAD_VALUE) as error:
                    if isinstance(error, sqlite3.Error) and not is_record_fault(error):
                        raise
                    # The statement has undone itself and nothing else.
                    refused |= _one_by_one(
                        connection, statement, some, indices[start : start + most]
                    )


def _one_by_one(
    connection: sqlite3.Connection, statement: str, rows: list[Values], indices: list[int]
) -> dict[int, str]:
    """Insert what can be; a refused row undoes only itself."""
    refused: dict[int, str] = {}
    for row, index in zip(rows, indices, strict=True):
        if not connection.in_transaction:
            raise SinkFault(
                "a trigger ended the batch's transaction: RAISE(ROLLBACK) is not for it"
            )
        try:
            connection.execute(statement, row)
        except sqlite3.Error as error:
            if not is_record_fault(error):
                raise
            refused[index] = str(error)
        except BAD_VALUE as error:
            refused[index] = f"{type(error).__name__}: {error}"
    return refused
