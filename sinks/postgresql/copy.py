"""One batch into PostgreSQL: proof, own ids, COPY per table, merges, COMMIT; bad rows are left out.

Runs in a pipeline's worker thread, on a connection that is this thread's for the while.  COMMIT is
sent when everything before it was answered: a connection that is cut with statements on their way
stores nothing late, unless it was COMMIT itself, and then the proof's key is held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import psycopg

from pipeline.errors import PartialFailure, PermanentError, SinkError, SinkFault
from pipeline.record import Batch
from pipeline.sink import Written
from sinks.merging import MergeJob
from sinks.postgresql.connections import Connection
from sinks.postgresql.job import CopyJob
from sinks.postgresql.merging import Merging
from sinks.postgresql.ownids import OwnIdTable
from sinks.postgresql.poison import PoisonRate, most_refused
from sinks.postgresql.proofs import Proofs
from sinks.postgresql.sqlstate import (
    as_sink_error,
    explain,
    is_missing_partition,
    is_record_fault,
    row_at_fault,
)
from sinks.recordids import Key, OwnIds


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """What a sink keeps beside the data, and what it learned."""

    proofs: Proofs | None
    own_ids: OwnIdTable | None
    poison: PoisonRate
    makes_partitions: bool = False
    merging: Merging | None = None
    """For tables of what records add up to."""
    closing: Callable[[Batch], str] | None = None
    """The last statement of a batch's transaction, "" for none."""


class _Refused(Exception):
    """A row was refused; the transaction is open and good for nothing but a rollback."""

    def __init__(self, job: CopyJob, row: int | None, error: psycopg.Error) -> None:
        super().__init__()
        self.job, self.row, self.error = job, row, error


def store_batch(
    connection: Connection,
    batch: Batch,
    jobs: list[CopyJob],
    *,
    merges: Sequence[MergeJob] = (),
    failures: dict[int, str],
    keeping: Keeping,
) -> Written:
    """Store all rows of all jobs in one transaction.

    Raises PartialFailure when rows were left out, or came in `failures`; PermanentError when there
    are too many of them, or when it is not known which they are.
    """
    rows, unfit = sum(len(job.rows) for job in jobs), len(failures)
    writing = _Writing(connection, batch, keeping, merges, most=most_refused(rows))
    piece = keeping.poison.pieces_expected(rows)
    try:
        try:
            written = writing.attempt(jobs, failures, piece)
        except _Refused as refused:
            if piece or refused.row is None:
                raise
            _roll_back(connection)
            # Its own cause is known: the second time goes without it.
            bad = refused.job.indices[refused.row]
            failures[bad] = explain(refused.error)
            jobs = [job.without({bad}) for job in jobs]
            written = writing.attempt(jobs, failures, keeping.poison.pieces_needed(rows))
    except _Refused as refused:
        _roll_back(connection)
        keeping.poison.count(rows=rows, refused=writing.refused)
        raise PermanentError(
            f"COPY into {refused.job.table}: {explain(refused.error)}"
        ) from refused.error
    except psycopg.Error as error:
        _roll_back(connection)
        raise as_sink_error(error, doing=writing.doing) from error
    except SinkError:
        _roll_back(connection)
        raise
    if rows and not writing.repeated:
        keeping.poison.count(rows=rows, refused=len(failures) - unfit)
    if keeping.proofs is not None:
        if failures and not writing.repeated:
            keeping.proofs.told(batch)
        keeping.proofs.prune(connection, batch)
    if keeping.own_ids is not None:
        keeping.own_ids.prune(connection, batch)
    if failures:
        raise PartialFailure(failures, already_stored=written.already_stored)
    return written


def probe(connection: Connection, jobs: list[CopyJob], merges: Sequence[MergeJob] = ()) -> None:
    """Send the rows and take them back: what is missing or forbidden shows, nothing stays."""
    doing = "the trial's transaction"
    try:
        connection.execute("BEGIN")
        for job in jobs:
            doing = f"COPY into {job.table}"
            _copy(connection, job, job.rows)
        for merge in merges:
            doing = f"merging into {', '.join(merge.tables)}"
            Merging().store(connection, merge)
        connection.execute("ROLLBACK")
    except psycopg.Error as error:
        _roll_back(connection)
        raise as_sink_error(error, doing=doing) from error


class _Writing:
    """The transactions of one `store_batch`."""

    def __init__(
        self,
        connection: Connection,
        batch: Batch,
        keeping: Keeping,
        merges: Sequence[MergeJob],
        *,
        most: int,
    ) -> None:
        self._connection = connection
        self._batch = batch
        self._keeping = keeping
        self._merges = merges
        self._most = most
        self.doing = ""
        self.refused = 0
        self.repeated = False

    def attempt(self, jobs: list[CopyJob], failures: dict[int, str], piece: int) -> Written:
        """One transaction, with a savepoint for each `piece` rows unless that is 0."""
        connection, keeping = self._connection, self._keeping
        self.doing = "the batch's transaction"
        if keeping.proofs is None:
            connection.execute("BEGIN")
        elif not keeping.proofs.begin(connection, self._batch, failures):
            connection.execute("ROLLBACK")
            self.repeated = True
            if keeping.proofs.was_told(self._batch):
                return self._try_refused(jobs, failures, keeping.proofs)
            failures.clear()
            failures.update(keeping.proofs.failures_of(connection, self._batch))
            return Written(stored=0, already_stored=self._batch.count - len(failures))
        left_out = self._store(jobs, failures, piece)
        self._merge(left_out)
        self._close()
        self.doing = "the batch's transaction"
        connection.execute("COMMIT")
        already = len(left_out)
        stored = self._batch.count - len(failures) - already
        return Written(stored=stored, already_stored=already)

    def _try_refused(
        self, jobs: list[CopyJob], failures: dict[int, str], proofs: Proofs
    ) -> Written:
        """The records that were refused before: the sink may have been repaired since."""
        self._connection.execute("BEGIN")
        refused = proofs.failures_of(self._connection, self._batch, lock=True)
        wanted = refused.keys() - failures.keys()
        again = [job.only(wanted) for job in jobs]
        rows = sum(len(job.rows) for job in again)
        self._merges = ()  # of these none was refused
        self._most = rows + 1  # their neighbours are stored: nothing is left to hand back
        left_out = self._store(again, failures, max(1, self._keeping.poison.pieces_needed(rows)))
        proofs.refused(self._connection, self._batch, failures)
        self._close()
        self._connection.execute("COMMIT")
        stored = rows - len(failures.keys() & wanted) - len(left_out)
        already = self._batch.count - len(failures) - stored
        return Written(stored=stored, already_stored=already)

    def _merge(self, left_out: set[int]) -> None:
        """Add up what is merged: last, as rows that many batches meet on are locked by it."""
        for merge in self._merges:
            self.doing = f"merging into {', '.join(merge.tables)}"
            if self._keeping.merging is None:
                raise SinkFault(f"{self.doing}: this sink has no such tables")
            self._keeping.merging.store(self._connection, merge.without(left_out))

    def _close(self) -> None:
        """Run the last statement, if there is one; it is answered before COMMIT is sent."""
        statement = self._keeping.closing(self._batch) if self._keeping.closing else ""
        if statement:
            self.doing = "the last statement of the batch's transaction"
            self._connection.execute(statement.encode())

    def _store(self, jobs: list[CopyJob], failures: dict[int, str], piece: int) -> set[int]:
        """Copy in the open transaction; returns the records whose own ids were stored before."""
        keeping = self._keeping
        known_failures = len(failures)
        ids, known = self._claim(jobs)
        left_out = ids.stored_before(known)
        if left_out:
            self._copy_all([job.without(left_out) for job in jobs], failures, piece)
        else:
            self._copy_all(jobs, failures, piece)
        if keeping.own_ids is not None and len(failures) > known_failures:
            left_out -= self._promote(jobs, failures, ids, known, set(ids.key_of) & set(failures))
        if keeping.proofs is not None and len(failures) > known_failures:
            keeping.proofs.refused(self._connection, self._batch, failures)
        return left_out

    def _claim(self, jobs: list[CopyJob]) -> tuple[OwnIds, set[Key]]:
        """The batch's own ids, and those among them that earlier batches have stored."""
        if self._keeping.own_ids is None:
            return OwnIds(), set()
        indices = [job.indices for job in jobs] + [job.indices for job in self._merges]
        ids = OwnIds.of(self._batch, chain.from_iterable(indices))
        return ids, self._keeping.own_ids.claim(self._connection, self._batch.sink, ids.first)

    def _promote(
        self,
        jobs: list[CopyJob],
        failures: dict[int, str],
        ids: OwnIds,
        known: set[Key],
        refused: set[int],
    ) -> set[int]:
        """Store the next record of an id whose first was refused; let go of ids nobody has."""
        promoted: set[int] = set()
        bare = {ids.key_of[index] for index in refused}
        while successors := ids.successors(refused, known):
            chosen = set(successors)
            self._copy_all([job.only(chosen) for job in jobs], failures, len(chosen))
            promoted |= chosen
            bare -= {key for index, key in successors.items() if index not in failures}
            refused = chosen & set(failures)
        if bare and self._keeping.own_ids is not None:
            self._keeping.own_ids.let_go(self._connection, self._batch.sink, bare)
        return promoted

    # --- COPY ------------------------------------------------------------------------------

    def _copy_all(self, jobs: list[CopyJob], failures: dict[int, str], piece: int) -> None:
        if piece:
            self._connection.execute("SAVEPOINT piece")
        for job in jobs:
            self.doing = f"COPY into {job.table}"
            if piece:
                self._in_pieces(job, failures, piece)
            elif job.rows:
                try:
                    _copy(self._connection, job, job.rows)
                except psycopg.Error as error:
                    raise self._refused(job, error) from error

    def _in_pieces(self, job: CopyJob, failures: dict[int, str], piece: int) -> None:
        rows = len(job.rows)
        left = [(start, min(start + piece, rows)) for start in range(0, rows, piece)][::-1]
        while left:
            start, end = left.pop()
            try:
                _copy(self._connection, job, job.rows[start:end])
            except psycopg.Error as error:
                found = self._refused(job, error)
                if found.row is None or start + found.row >= end or self.refused >= self._most:
                    raise found from error
                self._connection.execute("ROLLBACK TO piece")
                bad = start + found.row
                failures[job.indices[bad]] = explain(error)
                # What comes before it may hold another: keys are looked at after values.
                left += [
                    (first, last) for first, last in ((bad + 1, end), (start, bad)) if first < last
                ]
            else:
                self._connection.execute("RELEASE piece; SAVEPOINT piece")

    def _refused(self, job: CopyJob, error: psycopg.Error) -> _Refused:
        """Of an error that is a record's fault; any other is raised again."""
        if not is_record_fault(error) or (
            self._keeping.makes_partitions and is_missing_partition(error)
        ):
            raise error
        self.refused += 1
        row = row_at_fault(error)
        return _Refused(job, row if row is not None and row < len(job.rows) else None, error)


def _copy(connection: Connection, job: CopyJob, rows: list[bytes]) -> None:
    with connection.cursor() as cursor, cursor.copy(job.statement) as copy:
        copy.write(b"".join((job.header, *rows, job.trailer)))


def _roll_back(connection: Connection) -> None:
    try:
        connection.execute("ROLLBACK")
    except psycopg.Error:
        pass  # the connection is gone, and the transaction with it; it will not be lent again
