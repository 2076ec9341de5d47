"""The ids that records brought along, each stored once per sink, tenant and type.

A row of `collector_record_id` is written in the transaction that stores the record, so that both
are there or neither.  Rows go after the days that the sink is told to keep them.

`_lock` guards `_claimed`; statements run outside it, in the pipeline's worker threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

import msgspec
import psycopg
from psycopg import errors as pg
from psycopg import sql

from pipeline.errors import SinkFault
from pipeline.record import Batch
from sinks.postgresql.connections import Connection
from sinks.postgresql.sqlstate import as_sink_error
from sinks.recordids import Key

TABLE = "collector_record_id"
# The id leads, and bytes are compared: ids differ early, sinks and tenants hardly ever.
_TEXT = 'text COLLATE "C" NOT NULL'
DDL = (
    f"CREATE TABLE IF NOT EXISTS {TABLE} (sink {_TEXT}, tenant {_TEXT}, type {_TEXT}, id {_TEXT}, "
    "stored_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (id, tenant, type, sink))"
)
# Rows lie in the order of their times: a block range index costs an insert next to nothing.
INDEX = f"CREATE INDEX IF NOT EXISTS {TABLE}_stored_at ON {TABLE} USING brin (stored_at)"
PRUNE_EVERY = 50_000
_PRUNED_AT_ONCE = 4 * PRUNE_EVERY

_GIVEN = "SELECT * FROM json_to_recordset(%s) AS g (n int, tenant text, type text, id text)"
_CLAIM = (
    f"WITH given AS MATERIALIZED ({_GIVEN}), "  # noqa: S608
    f"claimed AS (INSERT INTO {TABLE} (sink, tenant, type, id) "
    "SELECT %s, tenant, type, id FROM given ON CONFLICT DO NOTHING RETURNING tenant, type, id) "
    "SELECT n FROM given LEFT JOIN claimed USING (tenant, type, id) WHERE claimed.id IS NULL"
)
_LET_GO = (
    f"DELETE FROM {TABLE} USING ({_GIVEN}) AS gone WHERE {TABLE}.sink = %s AND "  # noqa: S608
    f"({TABLE}.tenant, {TABLE}.type, {TABLE}.id) = (gone.tenant, gone.type, gone.id)"
)
_PRUNE = (
    f"DELETE FROM {TABLE} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {TABLE} WHERE sink = %s "  # noqa: S608
    "AND stored_at < now() - make_interval(days => %s) LIMIT %s))"
)


class OwnIdTable:
    """The ids of one sink object."""

    def __init__(self, *, days: int) -> None:
        self._days = days
        self._lock = threading.Lock()
        self._claimed = PRUNE_EVERY

    def prepare(self, connection: Connection) -> None:
        """Make the table where it is missing."""
        try:
            row = connection.execute("SELECT to_regclass(%s)", [TABLE]).fetchone()
            if row is None or row[0] is None:
                connection.execute(sql.SQL(DDL))
                connection.execute(sql.SQL(INDEX))
        except (pg.UniqueViolation, pg.DuplicateTable, pg.DuplicateObject):
            pass  # another process made it at the same moment
        except (pg.InsufficientPrivilege, pg.InvalidSchemaName) as error:
            raise SinkFault(
                f"dedupe_by_id: this user may not make the table {TABLE}; make it with: {DDL}; "
                f"{INDEX}; and give this user SELECT, INSERT and DELETE on it"
            ) from error
        except psycopg.Error as error:
            raise as_sink_error(error, doing=f"preparing {TABLE}") from error

    def claim(self, connection: Connection, sink: str, keys: Iterable[Key]) -> set[Key]:
        """Write these ids in the open transaction; returns those that were there already.

        In one order for all, so that two batches of the same ids never wait for each other.
        """
        ordered = sorted(keys, key=lambda key: key[::-1])
        if not ordered:
            return set()
        with self._lock:
            self._claimed += len(ordered)
        found = connection.execute(_CLAIM, [_given(ordered), sink]).fetchall()
        return {ordered[int(str(row[0]))] for row in found}

    def let_go(self, connection: Connection, sink: str, keys: Iterable[Key]) -> None:
        """Take ids back whose records were refused, so that a mended record finds its id free."""
        connection.execute(_LET_GO, [_given(sorted(keys)), sink])

    def prune(self, connection: Connection, batch: Batch) -> None:
        """Now and then drop this sink's ids that are old enough."""
        with self._lock:
            if self._claimed < PRUNE_EVERY:
                return
            self._claimed = 0
        try:
            connection.execute(_PRUNE, [batch.sink, self._days, _PRUNED_AT_ONCE])
        except psycopg.Error:
            pass  # the batch is stored; the next prune covers these rows too


def _given(keys: list[Key]) -> str:
    return msgspec.json.encode(
        [{"n": n, "tenant": key[0], "type": key[1], "id": key[2]} for n, key in enumerate(keys)]
    ).decode()
