"""JSON laid out for reading: indented, marked up by kind of value, and escaped whole.

Bounded: a very large value is shown as plain text, a very deep one cut with a note. Pure functions.
"""

from __future__ import annotations

import json
from typing import Any

from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe

from control.admin.inert import inert

INDENT = "  "
# Beyond this many values, markup costs more than it helps and plain indented text is shown.
MAX_MARKED = 2_000
MAX_DEPTH = 100
MAX_TEXT = 2_000_000


def json_html(value: Any) -> SafeString:
    """The value as a block of laid-out JSON. Safe whatever the value holds."""
    pieces: list[str] = []
    try:
        _walk(value, pieces, 0, [MAX_MARKED])
        body = "".join(pieces)
    except _TooLargeToMark:
        body = escape(_plain(value))
    return format_html(
        '<pre class="json" tabindex="0" aria-label="JSON">{}</pre>',
        mark_safe(body),  # noqa: S308 - every piece is escaped where it is made
    )


class _TooLargeToMark(Exception):
    """More values than are marked up."""


def _plain(value: Any) -> str:
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}\n… cut: {len(text) - MAX_TEXT} characters more"
    return inert(text)


def _text(value: Any) -> str:
    return escape(inert(json.dumps(value, ensure_ascii=False, default=str)))


def _walk(value: Any, out: list[str], depth: int, left: list[int]) -> None:
    left[0] -= 1
    if left[0] < 0:
        raise _TooLargeToMark
    if depth > MAX_DEPTH:
        out.append('<span class="j-note">… deeper than can be shown</span>')
    elif isinstance(value, dict):
        _container(
            "{}",
            [
                (f'<span class="j-key">{_text(str(key))}</span>: ', one)
                for key, one in value.items()
            ],
            out,
            depth,
            left,
        )
    elif isinstance(value, list | tuple):
        _container("[]", [("", one) for one in value], out, depth, left)
    elif isinstance(value, str):
        out.append(f'<span class="j-text">{_text(value)}</span>')
    elif isinstance(value, bool) or value is None:
        out.append(f'<span class="j-word">{_text(value)}</span>')
    else:
        out.append(f'<span class="j-number">{_text(value)}</span>')


def _container(
    brackets: str, items: list[tuple[str, Any]], out: list[str], depth: int, left: list[int]
) -> None:
    if not items:
        out.append(brackets)
        return
    out.append(brackets[0])
    for index, (label, value) in enumerate(items):
        out.append(("," if index else "") + "\n" + INDENT * (depth + 1) + label)
        _walk(value, out, depth + 1, left)
    out.append("\n" + INDENT * depth + brackets[1])
