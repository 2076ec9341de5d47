"""Owns: charts made of block characters, for a terminal.  Pure."""

from __future__ import annotations

from collections.abc import Sequence

_EIGHTHS = " ▁▂▃▄▅▆▇█"


def squeezed(values: Sequence[float], width: int) -> list[float]:
    """At most `width` values: the mean of each of so many runs of neighbours, where there are more.

    The runs are as long as is needed and no more; the latest may be shorter.
    """
    length = -(-len(values) // width)
    if length <= 1:
        return list(values)
    runs = (values[start : start + length] for start in range(0, len(values), length))
    return [sum(run) / len(run) for run in runs]


def columns(values: Sequence[float], *, width: int, height: int, top: float) -> list[str]:
    """Rows from the top down, the latest value at the right; `top` is the height of the chart.

    All values are shown, squeezed where there are more than columns.  A value above zero shows at
    least its lowest eighth.
    """
    shown = squeezed(values, width)
    levels = []
    for value in shown:
        level = round(min(max(value / top, 0.0), 1.0) * height * 8) if top > 0 else 0
        levels.append(max(level, 1) if value > 0 else 0)
    rows = []
    for row in reversed(range(height)):
        cells = (_EIGHTHS[min(max(level - row * 8, 0), 8)] for level in levels)
        rows.append("".join(cells).rjust(width))
    return rows


def bar(share: float, *, width: int, marks: Sequence[float] = ()) -> str:
    """A line filled up to `share` of it, with a stroke at each mark that it has not reached."""
    filled = round(min(max(share, 0.0), 1.0) * width)
    cells = ["█"] * filled + ["░"] * (width - filled)
    for mark in marks:
        at = min(int(mark * width), width - 1)
        if at >= filled:
            cells[at] = "│"
    return "".join(cells)


def round_top(value: float, *, least: float = 1.0) -> float:
    """The next of 1, 2 and 5 times a power of ten, so that a chart's scale stays a while."""
    value, step = max(value, least), 1.0
    while True:
        for factor in (1.0, 2.0, 5.0):
            if step * factor >= value:
                return step * factor
        step *= 10.0
