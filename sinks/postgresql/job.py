"""What one COPY of a batch sends, and where each row's record stands in the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql


@dataclass(slots=True, kw_only=True)
class CopyJob:
    """The rows of a batch that go to one table; `indices` are their places in the batch."""

    table: str
    statement: sql.Composed
    rows: list[bytes]
    indices: list[int]
    header: bytes = b""
    trailer: bytes = b""

    def without(self, left_out: set[int]) -> CopyJob:
        """The rows of other records than these."""
        kept = [n for n, index in enumerate(self.indices) if index not in left_out]
        return self._of(kept)

    def only(self, wanted: set[int]) -> CopyJob:
        """The rows of these records."""
        return self._of([n for n, index in enumerate(self.indices) if index in wanted])

    def _of(self, kept: list[int]) -> CopyJob:
        return CopyJob(
            table=self.table,
            statement=self.statement,
            rows=[self.rows[n] for n in kept],
            indices=[self.indices[n] for n in kept],
            header=self.header,
            trailer=self.trailer,
        )


def copy_statement(table: Sequence[str], columns: Sequence[str], *, binary: bool) -> sql.Composed:
    """COPY into `table` (schema and name, or the name alone)."""
    return sql.SQL("COPY {} ({}) FROM STDIN{}").format(
        sql.Identifier(*table),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(" (FORMAT binary)" if binary else ""),
    )
