"""What may be kept: JSON that both databases take, texts that fit their columns.

PostgreSQL keeps no NUL and no lone surrogate, neither keeps a NaN.  A message is spelled so that it
can be kept; a value is not changed behind its owner's back: `Unstorable` says why it cannot be.
"""

from __future__ import annotations

import re
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder

from jobs.store.models import ERROR_CHARS

# An escaped NUL, but not an escaped backslash before "u0000".
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_encode = DjangoJSONEncoder(
    allow_nan=False, ensure_ascii=False, separators=(",", ":"), check_circular=False
).encode


class Unstorable(ValueError):
    """No database keeps this value; the message says why."""


def json_text(value: Any, *, what: str) -> str:
    """The value as JSON.  Raises Unstorable, naming it as `what`."""
    try:
        text = _encode(value)
        text.encode()
    except UnicodeEncodeError as error:
        raise Unstorable(f"{what} holds half of a surrogate pair, which is no text") from error
    except RecursionError as error:
        raise Unstorable(f"{what} is nested too deeply, or holds itself") from error
    except (TypeError, ValueError) as error:
        raise Unstorable(f"{what} is no JSON value: {error}") from error
    if "\\u0000" in text and _NUL.search(text):
        raise Unstorable(f"{what} holds a NUL character")
    return text


def json_or_null(value: Any, *, what: str) -> str | None:
    return None if value is None else json_text(value, what=what)


def text(value: str, limit: int = ERROR_CHARS) -> str:
    """The text, spelled and cut so that it can be kept."""
    if "\0" in value:
        value = value.replace("\0", "\\u0000")
    if not value.isascii():
        value = value.encode("utf-8", "backslashreplace").decode()
    return value[:limit]
