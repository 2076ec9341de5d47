"""The records database of this installation: each record type in the table its app registered."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from sinks.options import SinkOptions
from sinks.recordids import DEFAULT_DAYS
from sinks.recordsdb import RecordsDatabaseSink


class DatabaseOptions(SinkOptions, frozen=True, kw_only=True):
    statement_timeout_s: Annotated[
        float, Meta(ge=1, le=3600, description="PostgreSQL: longest time for one statement.")
    ] = 60.0
    dedupe_by_id: Annotated[
        bool,
        Meta(description="A record's own id is stored once per tenant and type; costs some speed."),
    ] = False
    dedupe_days: Annotated[
        int, Meta(ge=1, le=365, description="With dedupe_by_id: how long an id is remembered.")
    ] = DEFAULT_DAYS


class DatabaseSink(RecordsDatabaseSink[DatabaseOptions]):
    """Stores records where the admin shows them."""

    Options: ClassVar[type[SinkOptions]] = DatabaseOptions
    label = "This installation's database"
    description = (
        "The tables that the admin browses: COPY into day partitions on PostgreSQL, bulk inserts "
        "on SQLite."
    )

    def __init__(self, options: DatabaseOptions, *, name: str = "") -> None:
        super().__init__(options, name=name)
        self.statement_timeout_s = options.statement_timeout_s
        self.own_id_days = options.dedupe_days if options.dedupe_by_id else None
