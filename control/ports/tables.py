"""Tables that stored records go to: each app says how its record type becomes rows.

The `database` sink copies the rows, `partitions` keeps the tables' days, retention drops them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from control.ports.registry import Registry
from pipeline.record import Part

ColumnKind: TypeAlias = Literal["int8", "int4", "float8", "text", "bool", "timestamptz", "jsonb"]
Rows: TypeAlias = Callable[[Part], Iterable[tuple[object, ...]]]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table of records.

    Values: timestamptz as int microseconds since 1970 UTC, text as str, jsonb as bytes, the
    others as Python's own; None only where the column is nullable.
    """

    name: str
    kind: ColumnKind
    nullable: bool = False
    """Whether NULL is an everyday value of it; any column may hold one, at some cost."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(ColumnKind):
            raise ValueError(f"column {self.name!r}: unknown kind {self.kind!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """`columns` and each tuple of `rows(part)` stand in the same order; the id column is `id`.

    `search` names the text column that the full-text index covers, "" for none; left out, it is
    `message` where the table has one.  A table that is `own` is written by an internal sink of its
    app, and the `database` sink does not know it.  `kept_days` tells how many days its rows are
    kept where that is not the records' number.
    """

    record_type: str
    table: str
    columns: tuple[Column, ...]
    rows: Rows
    search: str | None = None
    own: bool = False
    kept_days: Callable[[], int] | None = None

    @property
    def search_column(self) -> str:
        if self.search is not None:
            return self.search
        return "message" if any(column.name == "message" for column in self.columns) else ""


_tables: Registry[TableSpec] = Registry(what="table")


def register_table(spec: TableSpec) -> None:
    _tables.register(spec.record_type, spec)


def unregister_table(record_type: str) -> None:
    _tables.unregister(record_type)


def table_for(record_type: str) -> TableSpec | None:
    """The table that the `database` sink keeps records of this type in."""
    spec = _tables.get(record_type)
    return None if spec is None or spec.own else spec


def tables() -> list[TableSpec]:
    """Every table of records, for those who see to partitions and retention."""
    return _tables.values()
