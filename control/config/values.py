"""Turn the text of an environment variable or a TOML value into a typed setting.

Pure functions without state; called once, while the settings load.
"""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path
from typing import Any

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_SIZE = re.compile(r"(\d+)\s*(|[kmg]i?b?|b)", re.IGNORECASE)
_FACTORS = {"": 1, "b": 1, "k": 1000, "ki": 1024, "m": 1000**2, "mi": 1024**2, "g": 1000**3}
_FACTORS["gi"] = 1024**3


def coerce(hint: Any, raw: object, *, name: str) -> Any:
    """The value `raw` as the type `hint`; raises ValueError saying what was expected.

    The message never repeats `raw`: it may be a password in the wrong variable.
    """
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if raw is None or raw == "":
            return None
        inner = [part for part in typing.get_args(hint) if part is not type(None)]
        return coerce(inner[0], raw, name=name)
    if origin is tuple:
        return _strings(raw)
    if hint is bool:
        return _boolean(raw)
    if hint is int:
        return _size(raw) if name.endswith("_bytes") else _integer(raw)
    if hint is float:
        return _number(raw)
    if hint is Path:
        return Path(_text(raw)).expanduser()
    if hint is str:
        return _text(raw)
    raise TypeError(f"setting {name} has a type that cannot be read: {hint!r}")


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError("expected text")
    return raw.strip()


def _boolean(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    word = raw.strip().lower() if isinstance(raw, str) else ""
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("expected true or false")


def _integer(raw: object) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str):
        try:
            return int(raw.strip().replace("_", ""))
        except ValueError:
            pass
    raise ValueError("expected a whole number")


def _size(raw: object) -> int:
    if isinstance(raw, str):
        match = _SIZE.fullmatch(raw.strip().replace("_", ""))
        if match is None:
            raise ValueError("expected a number of bytes such as 1048576 or 32MiB")
        unit = match[2].lower()
        return int(match[1]) * _FACTORS[unit if unit == "b" else unit.removesuffix("b")]
    return _integer(raw)


def _number(raw: object) -> float:
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):
        value = float(raw)
    else:
        try:
            value = float(_text(raw))
        except ValueError:
            raise ValueError("expected a number") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("expected a finite number")
    return value


def _strings(raw: object) -> tuple[str, ...]:
    parts = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise ValueError("expected a list of texts (in the environment: separated by commas)")
    return tuple(part.strip() for part in parts if part.strip())
