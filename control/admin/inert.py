"""Text from outside, made harmless to look at.

HTML is escaped by templates; what is left are characters that change how other text reads:
control characters, and Unicode's invisible and direction-changing ones. They are shown as their
escapes instead of doing what they do. Pure functions.
"""

from __future__ import annotations

import re

# C0 and C1 controls except tab and line feed; soft hyphen; zero-width and bidirectional marks;
# line and paragraph separators; byte order mark; lone surrogates; tags and variation fillers.
_ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def inert(text: str, *, limit: int | None = None) -> str:
    """`text` with active characters written out, cut to `limit` characters."""
    if limit is not None and len(text) > limit:
        text = text[:limit] + "…"
    return _ACTIVE.sub(_escape, text)


def one_line(text: str, *, limit: int) -> str:
    """For a cell of a list: `text` on one line."""
    return " ".join(inert(text[: limit * 2], limit=limit).split())
