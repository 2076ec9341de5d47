"""A batch's rows per table, with each row's place in the batch.

Runs in a pipeline's worker thread; keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from control.ports.tables import TableSpec, table_for
from pipeline.errors import PermanentError, SinkFault
from pipeline.record import Batch


@dataclass(slots=True)
class TableRows:
    """The rows that go to one table; `indices[n]` is where row n's record stands in the batch."""

    spec: TableSpec
    rows: list[tuple[object, ...]] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)


FindTable = Callable[[str], TableSpec | None]


def rows_by_table(batch: Batch, find_table: FindTable = table_for) -> list[TableRows]:
    """What each table gets, in the order in which the types first appear."""
    by_type: dict[str, TableRows] = {}
    start = 0
    for part in batch.parts:
        target = by_type.get(part.type)
        if target is None:
            spec = find_table(part.type)
            if spec is None:
                raise SinkFault(
                    f"no table is registered for records of type {part.type!r}; "
                    "name the types that this sink takes in its route"
                )
            target = by_type[part.type] = TableRows(spec)
        before = len(target.rows)
        try:
            target.rows.extend(target.spec.rows(part))
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise PermanentError(
                f"a record of type {part.type!r} does not fit {target.spec.table}: {error}"
            ) from error
        made = len(target.rows) - before
        if made != part.count:
            raise SinkFault(
                f"the row encoder of {target.spec.table} made {made} rows of {part.count} records"
            )
        target.indices.extend(range(start, start + part.count))
        start += part.count
    return list(by_type.values())
