"""Another server's word on when to come back: the Retry-After header.  Pure."""

from __future__ import annotations

from email.utils import parsedate_to_datetime


def retry_after_s(text: str, *, now_s: float, date: str = "") -> float | None:
    """Seconds, or None when there is none that can be read.

    A moment is reckoned from the answer's own `Date`, where it has one: the two clocks may differ.
    """
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    until = _moment(text)
    if until is None:
        return None
    said = _moment(date)
    return max(0.0, until - (now_s if said is None else said))


def _moment(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, TypeError, OverflowError):
        return None
