"""A batch's rows per table, with each row's place in the batch; and what of it is merged.

Runs in a pipeline's worker thread; keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from control.ports.merging import MergeSpec, merge_for
from control.ports.tables import TableSpec, table_for
from pipeline.errors import PermanentError, SinkFault
from pipeline.record import Batch
from sinks.merging import MergeJob


@dataclass(slots=True)
class TableRows:
    """The rows that go to one table; `indices[n]` is where row n's record stands in the batch."""

    spec: TableSpec
    rows: list[tuple[object, ...]] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)


FindTable = Callable[[str], TableSpec | None]
FindMerge = Callable[[str], MergeSpec | None]


def rows_by_table(
    batch: Batch, find_table: FindTable = table_for, find_merge: FindMerge = merge_for
) -> tuple[list[TableRows], list[MergeJob]]:
    """What each table gets, in the order in which the types first appear, and what is merged."""
    by_type: dict[str, TableRows] = {}
    merged: dict[str, MergeJob] = {}
    start = 0
    for part in batch.parts:
        target = by_type.get(part.type)
        if target is None:
            merge = merged.get(part.type) or _merge_job(part.type, find_merge)
            if merge is not None:
                merge.parts.append((start, part))
                merged[part.type] = merge
                start += part.count
                continue
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
    return list(by_type.values()), list(merged.values())


def _merge_job(record_type: str, find_merge: FindMerge) -> MergeJob | None:
    spec = find_merge(record_type)
    return None if spec is None else MergeJob(spec=spec, parts=[])
