"""Rows as SQLite keeps them, in the form that Django's fields read back: times and JSON as text.

Compiled once per column list, like the packer for PostgreSQL; pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from control.ports.tables import Column

Row = tuple[object, ...]
Converter = Callable[[Iterable[Row]], list[Row]]

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - Django keeps UTC without an offset on SQLite
_EXPRESSIONS = {"timestamptz": "time({})", "jsonb": "text({})"}


def convert_rows(columns: Sequence[Column], rows: Iterable[Row]) -> list[Row]:
    """The rows with times and JSON as text.  Raises ValueError or OverflowError on a bad value."""
    return _converter(tuple(columns))(rows)


@lru_cache(maxsize=64)
def _converter(columns: tuple[Column, ...]) -> Converter:
    names = [f"v{i}" for i in range(len(columns))]
    values = [
        _EXPRESSIONS.get(column.kind, "{}").format(name)
        for column, name in zip(columns, names, strict=True)
    ]
    source = f"lambda rows: [({', '.join(values)},) for {', '.join(names)}, in rows]"
    if len(names) > 1:
        source = f"lambda rows: [({', '.join(values)},) for {', '.join(names)} in rows]"
    made: Converter = eval(source, {"time": time_text, "text": _text})  # noqa: S307
    return made


def time_text(us: int | None) -> str | None:
    """Microseconds since 1970 as Django's SQLite text: no fraction where it is zero."""
    if us is None:
        return None
    seconds, fraction = divmod(us, 1_000_000)
    text = _second_text(seconds)
    return f"{text}.{fraction:06d}" if fraction else text


@lru_cache(maxsize=4096)
def _second_text(seconds: int) -> str:
    return str(_EPOCH + timedelta(seconds=seconds))


def _text(payload: Any) -> str | None:
    return None if payload is None else payload.decode()
