"""Any PostgreSQL and any table: fields of records into columns, by COPY.

Connections are one per worker that writes, kept while they are sound.  With `exactly_once` a small
table of proofs, `collector_batch_proof`, is kept beside the data.  Where this user may not make it,
the sink works on, says that it is at least once, and looks again every minute.

`_lock` guards the preparing of what is kept beside the data; workers wait for it, not for each
other's writes.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, ClassVar

import psycopg
from msgspec import Meta
from psycopg import conninfo as pg_conninfo
from psycopg import sql

from pipeline.errors import PermanentError, SinkFault
from pipeline.record import Batch
from pipeline.sink import Written
from sinks.base import BaseSink
from sinks.options import Secret, SinkOptions
from sinks.postgresql.connections import Connection, Connections
from sinks.postgresql.copy import Keeping, probe, store_batch
from sinks.postgresql.guarantee import found_forbidden, found_sound, risk_of
from sinks.postgresql.job import CopyJob, copy_statement
from sinks.postgresql.mapping import RowMapping, source_problem
from sinks.postgresql.ownids import OwnIdTable
from sinks.postgresql.poison import PoisonRate
from sinks.postgresql.proofs import Proofs, ProofsForbidden
from sinks.postgresql.sqlstate import as_sink_error
from sinks.recordids import DEFAULT_DAYS

logger = logging.getLogger(__name__)

LOOK_AGAIN_S = 60.0

_NAME = r"[^\W\d][\w$]{0,62}"


class PostgresOptions(SinkOptions, frozen=True, kw_only=True):
    dsn: Annotated[
        Secret,
        Meta(description="postgresql://user:password@host/database, or env:NAME."),
    ]
    table: Annotated[
        str,
        Meta(pattern=rf"^({_NAME}\.)?{_NAME}$", description="events, or schema.events."),
    ]
    columns: Annotated[
        dict[str, str],
        Meta(
            min_length=1,
            description="One a line: column = field. Fields are timestamp, service, message and "
            "the like, or payload.<name>.",
        ),
    ]
    exactly_once: Annotated[
        bool,
        Meta(
            description="Keeps a table collector_batch_proof, so that a retry stores nothing "
            "twice; without the right to make it the sink says that it is at least once."
        ),
    ] = True
    dedupe_by_id: Annotated[
        bool,
        Meta(description="A record's own id is stored once per tenant and type; costs some speed."),
    ] = False
    dedupe_days: Annotated[
        int, Meta(ge=1, le=365, description="With dedupe_by_id: how long an id is remembered.")
    ] = DEFAULT_DAYS
    statement_timeout_s: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    connect_timeout_s: Annotated[int, Meta(ge=1, le=120)] = 10

    def __post_init__(self) -> None:
        try:
            pg_conninfo.conninfo_to_dict(self.dsn.reveal())
        except psycopg.Error:
            # The error of libpq would quote the text, password and all.
            raise ValueError(
                "dsn: expected postgresql://user:password@host/database or key=value pairs"
            ) from None
        for column, source in self.columns.items():
            if not re.fullmatch(_NAME, column):
                raise ValueError(f"columns: {column!r} is not a column name")
            if problem := source_problem(source):
                raise ValueError(f"columns: {column}: {problem}")


class PostgresSink(BaseSink[PostgresOptions]):
    """Copies records into a table of the operator's."""

    Options: ClassVar[type[SinkOptions]] = PostgresOptions
    label = "PostgreSQL table"
    description = "Any PostgreSQL and any table: fields are mapped to columns and written by COPY."
    supports_probe = True
    supports_exactly_once = True
    supports_partial_failure = True

    def __init__(
        self,
        options: PostgresOptions,
        *,
        name: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(options, name=name)
        self._monotonic = monotonic
        self._table = options.table.split(".")
        self._mapping = RowMapping(options.columns)
        self._statement = copy_statement(self._table, self._mapping.columns, binary=False)
        self._connections = Connections(
            conninfo=options.dsn.reveal(),
            application_name=f"collector sink {name}",
            connect_timeout_s=options.connect_timeout_s,
            statement_timeout_s=options.statement_timeout_s,
        )
        self._proofs = Proofs()
        self._own_ids = OwnIdTable(days=options.dedupe_days) if options.dedupe_by_id else None
        self._keeping = Keeping(proofs=None, own_ids=self._own_ids, poison=PoisonRate())
        self._lock = threading.Lock()
        self._prepared = False
        self._look_again_s = 0.0

    def checks(self) -> list[str]:
        if not self.options.exactly_once:
            return ["exactly_once is off: a batch whose answer was lost is stored twice"]
        risk = risk_of(self.options.dsn.reveal())
        return [risk] if risk else []

    def secret_texts(self) -> list[str]:
        parts = pg_conninfo.conninfo_to_dict(self.options.dsn.reveal())
        password = parts.get("password")
        return [*super().secret_texts(), *([str(password)] if password else [])]

    def open(self) -> None:
        if self._is_prepared():
            return
        with self._connections.lend() as connection:
            self._prepare(connection)

    def write(self, batch: Batch) -> Written:
        job, failures = self._job(batch)
        try:
            with self._connections.lend() as connection:
                if not self._is_prepared():
                    self._prepare(connection)
                    job, failures = self._job(batch)
                return store_batch(
                    connection, batch, [job], failures=failures, keeping=self._keeping
                )
        except SinkFault:
            self._prepared = False  # a table of this sink's own may have been taken away
            raise

    def probe(self, batch: Batch) -> str:
        job, failures = self._job(batch)
        table = self.options.table
        try:
            with self._connections.lend() as connection:
                probe(connection, [job])
        except PermanentError as error:
            # The marked record has none of the payload's fields, which the table may insist on.
            return f"{table} was reached; by its own rules it refused the marked row: {error}"
        if failures:
            return f"{table} was reached; the marked record has no row: {failures[0]}"
        done = f"A marked row was copied into {table} and taken back."
        risk = self.checks()
        return f"{done} {risk[0][:1].upper()}{risk[0][1:]}." if risk else done

    def forget(self, log_id: str) -> None:
        if self._keeping.proofs is None:
            return
        with self._connections.lend() as connection:
            self._proofs.forget(connection, log_id)

    def abort(self) -> None:
        self._connections.abort()

    def close(self) -> None:
        self._connections.close()
        self._prepared = False

    def _is_prepared(self) -> bool:
        if self._keeping.proofs is None and self.options.exactly_once:
            return self._prepared and self._monotonic() < self._look_again_s
        return self._prepared

    def _prepare(self, connection: Connection) -> None:
        with self._lock:
            if self._is_prepared():
                return
            if self.options.exactly_once:
                self._prepare_proofs(connection)
            if self._own_ids is not None:
                self._own_ids.prepare(connection)
            self._mapping.learn(_json_columns(connection, self._table))
            self._prepared = True

    def _prepare_proofs(self, connection: Connection) -> None:
        dsn = self.options.dsn.reveal()
        try:
            self._proofs.prepare(connection)
        except ProofsForbidden as error:
            self._keeping = replace(self._keeping, proofs=None)
            self._look_again_s = self._monotonic() + LOOK_AGAIN_S
            if found_forbidden(dsn, str(error)):
                logger.warning("sink %s: %s", self.name, risk_of(dsn))
            return
        self._keeping = replace(self._keeping, proofs=self._proofs)
        if found_sound(dsn):
            logger.info(
                "sink %s: the table of proofs is there, from now on exactly once", self.name
            )

    def _job(self, batch: Batch) -> tuple[CopyJob, dict[int, str]]:
        rows, indices, failures = self._mapping.rows(batch)
        job = CopyJob(
            table=self.options.table, statement=self._statement, rows=rows, indices=indices
        )
        return job, failures


def _json_columns(connection: Connection, table: list[str]) -> set[str]:
    """The table's columns of type json and jsonb; none when there is no such table (yet)."""
    try:
        found = connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s)"
            " AND atttypid IN ('json'::regtype, 'jsonb'::regtype) AND NOT attisdropped",
            [sql.Identifier(*table).as_string(connection)],
        ).fetchall()
    except psycopg.Error as error:
        raise as_sink_error(error, doing="reading the table's columns") from error
    return {str(row[0]) for row in found}
