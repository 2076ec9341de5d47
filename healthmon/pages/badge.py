"""Badges: a word beside a label, as SVG.  Pure functions."""

from __future__ import annotations

from django.utils.html import escape

from healthmon.pages.board import WORDS
from healthmon.truth.machine import DEGRADED, DOWN, MAINTENANCE, UP

# Both with white text on them read well (contrast of at least 4.5 to 1).
_COLOURS = {UP: "#14663b", DEGRADED: "#96590b", DOWN: "#b3262d", MAINTENANCE: "#1f5fbf"}
_GREY = "#525d6d"
_LABEL = "#333b47"
# Of Verdana at 11 px, roughly: wide, middling and narrow letters.
_NARROW, _WIDE = frozenset("fijlrt.,:;|!'() 1"), frozenset("mwMW%@")
MAX_LABEL_CHARS = 40


def status_badge(status: str) -> str:
    return draw("status", WORDS[status].lower(), _COLOURS.get(status, _GREY))


def uptime_badge(ratio: float | None, days: int) -> str:
    label = f"uptime {days} d"
    if ratio is None:
        return draw(label, "not known", _GREY)
    colour = UP if ratio >= 0.999 else DEGRADED if ratio >= 0.98 else DOWN
    return draw(label, percent(ratio), _COLOURS[colour])


def latency_badge(p95_ms: float | None) -> str:
    if p95_ms is None:
        return draw("p95 24 h", "not known", _GREY)
    return draw("p95 24 h", milliseconds(p95_ms), _COLOURS[MAINTENANCE])


def percent(ratio: float, *, aligned: bool = False) -> str:
    """Never rounded up to a whole that it was not.  `aligned` figures stand under one another."""
    cut = int(ratio * 100_000) / 1_000 if ratio < 1 else 100.0
    text = f"{cut:.3f}"
    return (text if aligned else text.rstrip("0").rstrip(".")) + " %"


def milliseconds(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 10_000 else f"{ms / 1000:.1f} s"


def draw(label: str, value: str, colour: str) -> str:
    label, value = label[:MAX_LABEL_CHARS], value[:MAX_LABEL_CHARS]
    left, right = _width(label) + 12, _width(value) + 12
    said = escape(f"{label}: {value}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" '
        f'aria-label="{said}"><title>{said}</title>'
        f'<clipPath id="r"><rect width="{left + right}" height="20" rx="3"/></clipPath>'
        f'<g clip-path="url(#r)"><rect width="{left}" height="20" fill="{_LABEL}"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{colour}"/></g>'
        f'<g fill="#fff" text-anchor="middle" font-size="11" '
        f'font-family="Verdana,DejaVu Sans,Geneva,sans-serif">'
        f'<text x="{left / 2:g}" y="14">{escape(label)}</text>'
        f'<text x="{left + right / 2:g}" y="14">{escape(value)}</text></g></svg>'
    )


def _width(text: str) -> int:
    return sum(4 if c in _NARROW else 10 if c in _WIDE else 7 for c in text)
