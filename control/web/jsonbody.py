"""JSON from outside: bounded in depth, and without what no database holds.

Pure.  What is usual is told from the bytes alone; only a text that could hold more is walked.
"""

from __future__ import annotations

from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode


class BadJson(ValueError):
    """The text is no JSON that is taken; the words say why."""


def decode_json(raw: bytes, *, max_depth: int) -> Any:
    """The value.  Raises BadJson."""
    try:
        value = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadJson(f"The body is no JSON: {error}") from None
    # U+0000 and half a pair are only ever written as escapes; as deep as that there are brackets.
    if b"\\u" in raw or raw.count(b"[") + raw.count(b"{") >= max_depth:
        _check(value, max_depth, max_depth)
    return value


def _check(value: Any, depth: int, max_depth: int) -> None:
    if depth == 0:
        raise BadJson(f"The body is nested more than {max_depth} deep.")
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
            raise BadJson("A text holds U+0000 or half a surrogate pair.")
    elif isinstance(value, dict):
        for key, one in value.items():
            _check(key, depth - 1, max_depth)
            _check(one, depth - 1, max_depth)
    elif isinstance(value, list):
        for one in value:
            _check(one, depth - 1, max_depth)
