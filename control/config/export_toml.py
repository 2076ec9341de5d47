"""Plain values as TOML text, the way a person would lay them out: scalars first, then tables.

Covers what configuration needs: text, numbers, booleans, lists of scalars, nested tables, lists of
tables.  None is left out, as TOML has no word for it.  Pure functions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
_ESCAPED = re.compile(r'[\x00-\x1f"\\\x7f\ud800-\udfff]')


def dumps(document: Mapping[str, Any]) -> str:
    """The document; raises TypeError for a value that TOML cannot hold."""
    lines: list[str] = []
    _table(document, (), lines)
    return "\n".join(lines).strip("\n") + "\n" if lines else ""


def _table(table: Mapping[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    later: list[tuple[str, Any]] = []
    for key, value in table.items():
        if value is None:
            continue
        if isinstance(value, Mapping) or _is_list_of_tables(value):
            later.append((key, value))
        else:
            lines.append(f"{_key(key)} = {_scalar(value)}")
    for key, value in later:
        below = (*path, key)
        name = ".".join(map(_key, below))
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]"]
            _table(value, below, lines)
        for one in () if isinstance(value, Mapping) else value:
            lines += ["", f"[[{name}]]"]
            _table(one, below, lines)


def _is_list_of_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _scalar(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            if math.isfinite(value):
                return repr(value)
            return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
        case str():
            return _text(value)
        case list() | tuple():
            return f"[{', '.join(map(_scalar, value))}]"
        case Mapping():
            inside = ", ".join(f"{_key(k)} = {_scalar(v)}" for k, v in value.items())
            return f"{{ {inside} }}" if inside else "{}"
        case _:
            raise TypeError(f"{type(value).__name__} cannot be written as TOML")


def _text(text: str) -> str:
    def spelled(found: re.Match[str]) -> str:
        character = found[0]
        return _SHORT.get(character) or f"\\u{ord(character):04x}"

    return f'"{_ESCAPED.sub(spelled, text)}"'
