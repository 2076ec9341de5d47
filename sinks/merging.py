"""A batch's records that are merged: which, and the rows that they come to.

Runs in a pipeline's worker thread.  `KnownKeys` is shared by the workers of a sink; its `_lock`
guards the set.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from control.ports.merging import MAX_TOTAL, Chosen, MergedRow, MergedTable, MergeSpec
from pipeline.errors import PermanentError
from pipeline.record import Part

_KNOWN = 100_000

TableRows = list[tuple[MergedTable, list[MergedRow]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeJob:
    """The records of one type, all of them in the batch but those `left_out`, by their places."""

    spec: MergeSpec
    parts: list[tuple[int, Part]]
    """Each part, and where its first record stands in the batch."""
    left_out: frozenset[int] = frozenset()

    @property
    def tables(self) -> list[str]:
        return [table.table for table in self.spec.tables]

    @property
    def indices(self) -> list[int]:
        every = (n for start, part in self.parts for n in range(start, start + part.count))
        return [n for n in every if n not in self.left_out]

    @property
    def count(self) -> int:
        return len(self.indices) if self.left_out else sum(part.count for _, part in self.parts)

    def without(self, left_out: Collection[int]) -> MergeJob:
        return replace(self, left_out=self.left_out.union(left_out)) if left_out else self

    def _chosen(self) -> Chosen:
        if not self.left_out:
            return [(part, part.records) for _, part in self.parts]
        return [
            (part, [r for n, r in enumerate(part.records, start) if n not in self.left_out])
            for start, part in self.parts
        ]

    def rows(self, limit: Limiter | None = None) -> TableRows:
        """The rows for each table, sorted by key: two batches lock them in the same order."""
        spec = self.spec
        try:
            found = [list(rows) for rows in spec.rows(self._chosen())]
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise PermanentError(
                f"a record of type {spec.record_type!r} cannot be added up: {error}"
            ) from error
        if limit is not None and spec.limit is not None:
            folded = limit(spec, found[0])
            if folded:
                found = [
                    _fold(table, rows, folded, first=n == 0)
                    for n, (table, rows) in enumerate(zip(spec.tables, found, strict=True))
                ]
        return [
            (table, _sorted(table, [_bounded(table, row) for row in rows]))
            for table, rows in zip(spec.tables, found, strict=True)
        ]


Limiter = Callable[[MergeSpec, Sequence[MergedRow]], Mapping[str, MergedRow]]
"""Which keys of the first table's rows have no room, and the row to add to instead."""


class KnownKeys:
    """Keys that are in the database, as far as this sink has seen: nobody need ask for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, None] = {}

    def unknown(self, keys: Iterable[str]) -> list[str]:
        with self._lock:
            return [key for key in keys if key not in self._known]

    def add(self, keys: Iterable[str]) -> None:
        with self._lock:
            self._known.update(dict.fromkeys(keys))
            while len(self._known) > _KNOWN:
                del self._known[next(iter(self._known))]


def without_room(
    spec: MergeSpec,
    rows: Sequence[MergedRow],
    *,
    known: KnownKeys,
    present: Callable[[MergedTable, list[str]], Collection[str]],
    counts: Callable[[MergedTable, str, list[str]], Mapping[str, int]],
) -> dict[str, MergedRow]:
    """A `Limiter` over a database: `present` keys, and the `counts` of rows of owners.

    Asked within the batch's transaction.  Two batches at once may each take the last places: the
    number is passed by what two batches bring, and no further.
    """
    limit, table = spec.limit, spec.tables[0]
    if limit is None or not (asked := known.unknown(str(row[0]) for row in rows)):
        return {}
    there = set(present(table, asked))
    known.add(there)
    absent = set(asked) - there
    place = table.place(limit.owner)
    new: dict[str, list[MergedRow]] = {}
    for row in rows:
        if row[0] in absent:
            new.setdefault(str(row[place]), []).append(row)
    if not new:
        return {}
    held, most = counts(table, limit.owner, sorted(new)), limit.most()
    folded: dict[str, MergedRow] = {}
    for owner, added in new.items():
        room = max(0, most - held.get(owner, 0))
        for row in sorted(added, key=lambda row: str(row[0]))[room:]:
            instead = limit.overflow(row)
            if instead[0] != row[0]:
                folded[str(row[0])] = instead
    return folded


def merge_rows(table: MergedTable, rows: Iterable[MergedRow]) -> list[MergedRow]:
    """Rows of the same key as one, as the database would merge them."""
    keys = [table.place(name) for name in table.key]
    rules = [
        *((table.place(name), lambda a, b: a + b) for name in table.sums),
        *((table.place(name), min) for name in table.lowest),
        *((table.place(name), max) for name in table.highest),
    ]
    merged: dict[MergedRow, list[object]] = {}
    for row in rows:
        key = tuple(row[n] for n in keys)
        held = merged.get(key)
        if held is None:
            merged[key] = list(row)
            continue
        for n, rule in rules:
            held[n] = rule(held[n], row[n])  # type: ignore[operator]
    return [tuple(row) for row in merged.values()]


def _fold(
    table: MergedTable, rows: list[MergedRow], folded: Mapping[str, MergedRow], *, first: bool
) -> list[MergedRow]:
    """Rows of the folded keys under the keys that take them."""
    moved: list[MergedRow] = []
    for row in rows:
        instead = folded.get(str(row[0]))
        if instead is None:
            moved.append(row)
        else:
            moved.append(instead if first else (instead[0], *row[1:]))
    return merge_rows(table, moved)


def _bounded(table: MergedTable, row: MergedRow) -> MergedRow:
    """A sum that no column holds stops at the largest that one does, as it would there."""
    places = {table.place(name) for name in table.sums}
    if all(-MAX_TOTAL <= row[n] <= MAX_TOTAL for n in places):  # type: ignore[operator]
        return row
    return tuple(
        max(-MAX_TOTAL, min(value, MAX_TOTAL)) if n in places else value  # type: ignore[call-overload]
        for n, value in enumerate(row)
    )


def _sorted(table: MergedTable, rows: list[MergedRow]) -> list[MergedRow]:
    keys = [table.place(name) for name in table.key]
    return sorted(rows, key=lambda row: tuple(row[n] for n in keys))
