"""Owns: the drawing of a comparison: one SVG file, bars with their figures, light and dark.

No dependency and no script; colours follow what the reader's browser prefers.  Bars are medians,
the thin line in each the range of the repetitions.
"""

from __future__ import annotations

import math
from html import escape
from pathlib import Path

from benchmarks.comparison import Comparison, Panel, Row

_PANEL_WIDTH, _LABEL_WIDTH, _FIGURE_WIDTH = 560, 205, 96
_ROW, _BAR, _HEADING, _TOP, _MARGIN = 26, 16, 26, 104, 24
_WRAP = 150

_STYLE = """
  svg { font: 13px system-ui, sans-serif; background: #fff; }
  text { fill: #1f2328; } .quiet { fill: #59636e; } .title { font-size: 17px; font-weight: 600; }
  .head { font-weight: 600; } .bar { fill: #2f6fd0; } .best { fill: #1a7f52; }
  .range { stroke: #1f2328; stroke-width: 1.5; } .axis { stroke: #d1d9e0; }
  @media (prefers-color-scheme: dark) {
    svg { background: #12161c; } text { fill: #e6edf3; } .quiet { fill: #9aa5b1; }
    .bar { fill: #5b94ea; } .best { fill: #3fb37f; } .range { stroke: #e6edf3; }
    .axis { stroke: #3a434e; }
  }
"""


def write(comparison: Comparison, directory: Path) -> Path:
    """The file, whose name is the comparison's."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"benchmark-{comparison.name}.svg"
    path.write_text(svg(comparison), encoding="utf-8")
    return path


def svg(comparison: Comparison) -> str:
    setting = _wrapped(comparison.setting, _WRAP * max(len(comparison.panels), 1) // 2)
    top = _TOP + 16 * (len(setting) - 1)
    height = top + max((_height(panel) for panel in comparison.panels), default=0) + _MARGIN
    width = _PANEL_WIDTH * max(len(comparison.panels), 1) + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-labelledby="title desc">',
        f'<title id="title">{escape(comparison.title)}</title>',
        f'<desc id="desc">{escape(_words(comparison))}</desc>',
        f"<style>{_STYLE}</style>",
        _text(_MARGIN, 32, comparison.title, "title"),
        *(_text(_MARGIN, 54 + 16 * i, line, "quiet") for i, line in enumerate(setting)),
    ]
    for place, panel in enumerate(comparison.panels):
        parts += _panel(panel, _MARGIN + place * _PANEL_WIDTH, top)
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel, left: int, top: int) -> list[str]:
    better = "less is better" if panel.less_is_better else "more is better"
    scale = ", logarithmic" if panel.log else ""
    parts = [
        _text(left, top - 14, f"{panel.title}, {panel.unit}", "head"),
        _text(left + _PANEL_WIDTH - _MARGIN, top - 14, better + scale, "quiet", end=True),
    ]
    start = left + _LABEL_WIDTH
    room = _PANEL_WIDTH - _LABEL_WIDTH - _FIGURE_WIDTH - _MARGIN
    place = _Place(panel, room)
    y = top
    for group, rows in panel.groups():
        if group:
            parts.append(_text(left, y + 17, group, "head"))
            y += _HEADING
        best = (min if panel.less_is_better else max)(row.value for row in rows)
        for row in rows:
            parts += _bar(row, left, start, y, place, is_best=row.value == best and len(rows) > 1)
            y += _ROW
    parts.append(f'<line class="axis" x1="{start}" x2="{start}" y1="{top}" y2="{y}"/>')
    return parts


def _bar(row: Row, left: int, start: int, y: int, place: _Place, *, is_best: bool) -> list[str]:
    kind = "best" if is_best else "bar"
    low, high = place(min(row.values)), place(max(row.values))
    middle = y + _ROW / 2
    return [
        _text(left, y + 18, row.label),
        f'<rect class="{kind}" x="{start}" y="{y + (_ROW - _BAR) / 2:g}" '
        f'width="{max(place(row.value), 1):.1f}" height="{_BAR}" rx="2"/>',
        f'<line class="range" x1="{start + low:.1f}" x2="{start + high:.1f}" y1="{middle:g}" '
        f'y2="{middle:g}"/>',
        _text(round(start + high + 8), y + 18, figure(row.value), "quiet"),
    ]


class _Place:
    """How far along the panel's scale a value stands."""

    def __init__(self, panel: Panel, room: int) -> None:
        values = [value for row in panel.rows for value in row.values if value > 0]
        self._room, self._log = room, panel.log
        self._high = max(values, default=1.0)
        # A decade below the least, so that its bar has a length.
        self._low = 10 ** math.floor(math.log10(min(values, default=0.1))) / 10

    def __call__(self, value: float) -> float:
        if not self._log:
            return self._room * value / self._high
        if value <= self._low:
            return 0.0
        return self._room * math.log(value / self._low) / math.log(self._high / self._low)


def figure(value: float) -> str:
    """Three figures, or all of those before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _text(x: int, y: int, text: str, kind: str = "", *, end: bool = False) -> str:
    anchor = ' text-anchor="end"' if end else ""
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}"{named}{anchor}>{escape(text)}</text>'


def _height(panel: Panel) -> int:
    headings = sum(1 for group, _ in panel.groups() if group)
    return _ROW * len(panel.rows) + _HEADING * headings


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _words(comparison: Comparison) -> str:
    """The figures, for who cannot see the bars."""
    return ". ".join(
        f"{panel.title}{f' ({group})' if group else ''}: "
        + ", ".join(f"{row.label} {figure(row.value)} {panel.unit}" for row in rows)
        for panel in comparison.panels
        for group, rows in panel.groups()
    )
