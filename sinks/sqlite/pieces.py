"""A batch's rows cut into transactions; a row with an impossible value is told, not sent.

Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable

from sinks.sqlite.errors import BAD_VALUE
from sinks.sqlite.values import convert_rows
from sinks.tablerows import TableRows

MAX_ROWS = 1_000

Values = tuple[object, ...]
Piece = list[tuple[str, list[Values], list[int]]]  # statement, rows, places in the batch


def chosen(piece: Piece, wanted: Callable[[int], bool]) -> Piece:
    chosen: Piece = []
    for statement, rows, indices in piece:
        places = [n for n, index in enumerate(indices) if wanted(index)]
        chosen.append((statement, [rows[n] for n in places], [indices[n] for n in places]))
    return chosen


def cut(tables: list[TableRows], failures: dict[int, str]) -> list[Piece]:
    """The rows in transactions of at most MAX_ROWS; a row with an impossible value is a failure."""
    pieces: list[Piece] = []
    room = 0
    for table in tables:
        spec = table.spec
        names = ", ".join(f'"{column.name}"' for column in spec.columns)
        marks = ", ".join("?" * len(spec.columns))
        statement = f'INSERT INTO "{spec.table}" ({names}) VALUES ({marks})'  # noqa: S608
        try:
            rows, indices = convert_rows(spec.columns, table.rows), table.indices
        except BAD_VALUE:
            rows, indices = [], []
            for row, index in zip(table.rows, table.indices, strict=True):
                try:
                    rows += convert_rows(spec.columns, [row])
                    indices.append(index)
                except BAD_VALUE as error:
                    failures[index] = f"{type(error).__name__}: {error}"
        taken = 0
        while taken < len(rows):
            if not room:
                pieces.append([])
                room = MAX_ROWS
            end = taken + room
            pieces[-1].append((statement, rows[taken:end], indices[taken:end]))
            room -= len(pieces[-1][-1][1])
            taken = end
    return pieces
