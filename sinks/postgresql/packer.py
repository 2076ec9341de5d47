"""Rows as PostgreSQL's binary COPY wants them, by a function compiled once per column list.

A row is a count of fields and then, for each, its length and bytes in network order.  Two things
make the compiled function fast: neighbouring fields of fixed width share one `struct` call, and a
short text (tenant, level, service) is encoded once per batch.  None in a column that is not said to
be nullable, or is no number, sends that row down a general lane.

Pure; the compiled functions keep no state between calls.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from control.ports.tables import Column

HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
TRAILER = struct.pack(">h", -1)
POSTGRES_EPOCH_US = 946_684_800_000_000  # 2000-01-01 in microseconds since 1970

Row = tuple[object, ...]
Packer = Callable[[Iterable[Row]], list[bytes]]

_FIXED = {"int8": ("q", 8), "int4": ("i", 4), "float8": ("d", 8), "bool": ("b", 1),
          "timestamptz": ("q", 8)}  # fmt: skip
_NULL = struct.pack(">i", -1)
_CACHED_TEXT = 64  # characters; longer texts are rarely the same twice


class RowError(ValueError):
    """A row that no column type can hold; `index` counts the packed rows."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index
        self.reason = reason


def pack_rows(columns: Sequence[Column], rows: Iterable[Row]) -> list[bytes]:
    """Each row in binary; raises RowError at the first that cannot be one."""
    return packer_for(tuple(columns))(rows)


@lru_cache(maxsize=64)
def packer_for(columns: tuple[Column, ...]) -> Packer:
    """The compiled function for these columns."""
    source, names = _source(columns)

    def slow(row: Row, index: int) -> bytes:
        return _pack_slowly(columns, row, index)

    names.update(slow=slow, PackErrors=(struct.error, AttributeError, TypeError, ValueError))
    exec(compile(source, f"<packer of {len(columns)} columns>", "exec"), names)  # noqa: S102
    packer: Packer = names["pack"]
    return packer


def _source(columns: tuple[Column, ...]) -> tuple[str, dict[str, Any]]:
    """Python source of `pack(rows)`, and the names that it uses.

    For (id int8, at timestamptz, tenant text, payload jsonb) the body of the loop is
        e2 = known(v2)                                  # the cached length and bytes
        if e2 is None: b2 = v2.encode(); e2 = length(len(b2)) + b2; …
        out(join((fixed0(4, 8, v0, 8, v1 - EPOCH), e2, fixed2(len(v3) + 1), b"\x01" + v3)))
    """
    names: dict[str, Any] = {
        "EPOCH": POSTGRES_EPOCH_US,
        "NULL": _NULL,
        "length": struct.Struct(">i").pack,
    }
    pieces: list[str] = []
    before: list[str] = []
    run_format, run_values = ">h", [str(len(columns))]

    def end_run() -> None:
        nonlocal run_format, run_values
        if run_values:
            name = f"fixed{len(pieces)}"
            names[name] = struct.Struct(run_format).pack
            pieces.append(f"{name}({', '.join(run_values)})")
        run_format, run_values = ">", []

    for i, column in enumerate(columns):
        value = f"v{i}"
        if column.kind in _FIXED:
            code, width = _FIXED[column.kind]
            if column.nullable:
                end_run()
                names[f"alone{i}"] = struct.Struct(f">i{code}").pack
                number = f"{value} - EPOCH" if column.kind == "timestamptz" else value
                pieces.append(f"NULL if {value} is None else alone{i}({width}, {number})")
                continue
            run_format += f"i{code}"
            run_values += [
                str(width),
                f"{value} - EPOCH" if column.kind == "timestamptz" else value,
            ]
            continue
        encoded = f"{value}.encode()" if column.kind == "text" else f"b'\\x01' + {value}"
        if column.kind == "text":
            before += [
                f"e{i} = known({value})",
                f"if e{i} is None:",
                f"    b{i} = {encoded}",
                f"    e{i} = length(len(b{i})) + b{i}",
                f"    if len(b{i}) <= {_CACHED_TEXT}: cache[{value}] = e{i}",
            ]
            end_run()
            pieces.append(f"e{i}")
        else:
            run_format += "i"  # the length joins the fixed fields before it
            run_values.append(f"len({value}) + 1")
            end_run()
            pieces.append(encoded)
    end_run()
    values = ", ".join(f"v{i}" for i in range(len(columns)))
    body = "\n                ".join(before)
    return (
        f"""
def pack(rows):
    packed = []
    out = packed.append
    cache = {{}}
    known = cache.get
    join = b"".join
    for row in rows:
        try:
                {values}{"," if len(columns) == 1 else ""} = row
                {body}
                out(join(({", ".join(pieces)},)))
        except PackErrors:
            out(slow(row, len(packed)))
    return packed
""",
        names,
    )


def _pack_slowly(columns: tuple[Column, ...], row: Row, index: int) -> bytes:
    """One row, any field of which may be NULL; raises RowError naming the column at fault."""
    if len(row) != len(columns):
        raise RowError(index, f"{len(row)} values for {len(columns)} columns")
    pieces = [struct.pack(">h", len(columns))]
    for column, value in zip(columns, row, strict=True):
        if value is None:
            pieces.append(_NULL)
            continue
        try:
            data = _field(column.kind, value)
        except (struct.error, AttributeError, TypeError, ValueError) as error:
            raise RowError(index, f"column {column.name} ({column.kind}): {error}") from None
        pieces += (struct.pack(">i", len(data)), data)
    return b"".join(pieces)


def _field(kind: str, value: Any) -> bytes:
    if kind in _FIXED:
        if kind == "timestamptz":
            value -= POSTGRES_EPOCH_US
        return struct.pack(f">{_FIXED[kind][0]}", value)
    if kind == "jsonb":
        return b"\x01" + bytes(value)
    encoded: bytes = value.encode()
    return encoded
