"""What a step brought, as it can be kept: JSON that both databases hold, bounded.

Pure functions; what cannot be kept is a PermanentError, as calling again would bring it again.
"""

from __future__ import annotations

import json
from typing import Any

from jobs.store.models import ERROR_CHARS
from pipeline.errors import PermanentError

MAX_DEPTH = 64
MAX_DIGITS = 1_000

_written = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def kept(value: Any, *, step: str, max_bytes: int) -> Any:
    """The value as it is kept: tuples are lists, names of members texts."""
    if value is None or value is True or value is False:
        return value
    try:
        text = _written(value)
        size = len(text.encode())
    except RecursionError:
        raise PermanentError(f"step {step}: its result is nested too deeply") from None
    except UnicodeEncodeError:
        raise PermanentError(
            f"step {step}: its result holds half a character (a lone surrogate)"
        ) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise PermanentError(f"step {step}: its result is not JSON: {error}") from None
    if size > max_bytes:
        raise PermanentError(
            f"step {step}: its result has {size} bytes, more than the {max_bytes} that are kept "
            "(COLLECTOR_JOBS_MAX_RESULT_BYTES)"
        )
    value = json.loads(text)
    _screen(value, step)
    return value


def _screen(value: Any, step: str) -> None:
    """Refuse what PostgreSQL's jsonb does not hold."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise PermanentError(f"step {step}: its result is nested deeper than {MAX_DEPTH}")
        below: list[Any] = []
        for one in level:
            if isinstance(one, str):
                _screen_text(one, step)
            elif isinstance(one, dict):
                for name in one:
                    _screen_text(name, step)
                below.extend(one.values())
            elif isinstance(one, list):
                below.extend(one)
            elif isinstance(one, int) and one.bit_length() > 4 * MAX_DIGITS:
                raise PermanentError(f"step {step}: its result holds a number of too many digits")
        level = below


def _screen_text(text: str, step: str) -> None:
    if "\0" in text:
        raise PermanentError(f"step {step}: its result holds a NUL character")


def said(error: BaseException | str) -> str:
    """An error's text as it is kept: bounded, and nothing in it that a database refuses."""
    text = error if isinstance(error, str) else str(error) or type(error).__name__
    text = text.replace("\0", "\N{SYMBOL FOR NULL}")
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= ERROR_CHARS else f"{text[: ERROR_CHARS - 1]}…"
