"""Tables of what records add up to: records of one key are one row, whatever their number.

An app says how records of a type are coalesced; the sinks that write this installation's database
add the rows to what is there, in the transaction that proves the batch stored.  Such a table is
small, is not partitioned, and only grows by new keys, whose number an owner may have so many of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from control.ports.registry import Registry
from control.ports.tables import Column
from pipeline.record import Part, Record

MergedRow: TypeAlias = tuple[object, ...]
Chosen: TypeAlias = Sequence[tuple[Part, Sequence[Record]]]
"""Those records of each part that count."""
MAX_TOTAL = 2**63 - 1
"""Where a sum stops, in both directions: the largest number that a column of int8 holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedTable:
    """One table of a merge.

    `key` names the columns of its primary key, the first column of the table among them: it tells
    whose row it is, and is text.  A row that is there is added to: `sums` (int8) are added up and
    stop at `MAX_TOTAL`, `lowest` and `highest` keep the extreme, the others stay.  Rows whose
    `ends` (a timestamptz) is older than records are kept, are deleted; "" keeps them.
    """

    table: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    sums: tuple[str, ...]
    lowest: tuple[str, ...] = ()
    highest: tuple[str, ...] = ()
    ends: str = ""

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        told = (*self.key, *self.sums, *self.lowest, *self.highest)
        unknown = {*told, *filter(None, [self.ends])} - set(names)
        if unknown or len(set(told)) < len(told):
            raise ValueError(f"{self.table}: {sorted(unknown) or told} are not columns, once each")
        if self.columns[0].name not in self.key or self.columns[0].kind != "text":
            raise ValueError(f"{self.table}: the first column is text, and of the key")

    def place(self, name: str) -> int:
        return next(n for n, column in enumerate(self.columns) if column.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimit:
    """An owner, told by a column of the first table, has at most `most()` rows there.

    What would be a row beyond that is added to the row that `overflow` makes of it, which is one
    for each owner.
    """

    owner: str
    most: Callable[[], int]
    overflow: Callable[[MergedRow], MergedRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSpec:
    """How records of a type are merged.

    `rows` answers rows for each of `tables`, in their order, each key once; their first columns
    are the keys of the first table.  It raises ValueError for records that cannot be read.
    """

    record_type: str
    tables: tuple[MergedTable, ...]
    rows: Callable[[Chosen], Sequence[Sequence[MergedRow]]]
    limit: KeyLimit | None = None


_merges: Registry[MergeSpec] = Registry(what="merged table")


def register_merge(spec: MergeSpec) -> None:
    _merges.register(spec.record_type, spec)


def unregister_merge(record_type: str) -> None:
    _merges.unregister(record_type)


def merge_for(record_type: str) -> MergeSpec | None:
    """How the `database` sink merges records of this type; None where it keeps each of them."""
    return _merges.get(record_type)


def merges() -> list[MergeSpec]:
    """Every merge, for those who see to retention and choose types."""
    return _merges.values()
