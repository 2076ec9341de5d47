"""How values become SVG path data: scales, lines with gaps, areas, stacks, the axis' ticks.

Everything is drawn into a box of WIDTH x HEIGHT, which the page stretches. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

WIDTH = 1000.0
HEIGHT = 200.0
TICKS = 4

Values = Sequence[float | None]


def nice_ticks(top: float, *, count: int = TICKS) -> list[float]:
    """Round numbers from 0 to at least `top`, about `count` steps."""
    if top <= 0 or not math.isfinite(top):
        return [0.0, 1.0]
    raw = top / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    return [step * i for i in range(math.ceil(top / step - 1e-9) + 1)]


def runs(values: Values) -> list[tuple[int, list[float]]]:
    """The stretches without a gap: (index of the first value, values)."""
    found: list[tuple[int, list[float]]] = []
    fresh = True
    for index, value in enumerate(values):
        if value is None:
            fresh = True
        elif fresh:
            found.append((index, [value]))
            fresh = False
        else:
            found[-1][1].append(value)
    return found


def number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


class Scale:
    """Where places and values are drawn: x in the middle of a place, y from the top."""

    def __init__(self, *, count: int, top: float, height: float = HEIGHT) -> None:
        self.count = max(count, 1)
        self.top = top if top > 0 else 1.0
        self.height = height

    @property
    def width(self) -> str:
        """How wide a place is."""
        return number(WIDTH / self.count)

    def x(self, index: float) -> str:
        return number((index + 0.5) / self.count * WIDTH)

    def y(self, value: float) -> str:
        return number(self.height - min(max(value / self.top, 0.0), 1.0) * self.height)

    def points(self, start: int, values: Sequence[float]) -> str:
        return " ".join(f"{self.x(start + i)},{self.y(v)}" for i, v in enumerate(values))


def line_path(values: Values, scale: Scale, *, stepped: bool = False) -> str:
    """A line with gaps; a value alone between two gaps is a stroke as wide as its place."""
    parts = []
    for start, run in runs(values):
        if len(run) == 1:
            parts.append(f"M{scale.x(start - 0.5)},{scale.y(run[0])} h{scale.width}")
            continue
        if stepped:
            later = "".join(
                f" H{scale.x(start + i)} V{scale.y(v)}" for i, v in enumerate(run[1:], 1)
            )
            parts.append(f"M{scale.points(start, run[:1])}{later}")
            continue
        parts.append(f"M{scale.points(start, run)}")
    return " ".join(parts)


def area_path(values: Values, scale: Scale, floor: Sequence[float] | None = None) -> str:
    """An area down to `floor` (the stack below), or to zero."""
    parts = []
    for start, run in runs(values):
        below = [0.0] * len(run) if floor is None else list(floor[start : start + len(run)])
        back = " ".join(
            f"{scale.x(start + i)},{scale.y(below[i])}" for i in range(len(run) - 1, -1, -1)
        )
        parts.append(f"M{scale.points(start, run)} L{back}Z")
    return " ".join(parts)


def stack(series: Sequence[Values]) -> list[tuple[list[float], list[float | None]]]:
    """For each series the floor it stands on and its upper edge."""
    length = max(map(len, series), default=0)
    floor = [0.0] * length
    layers = []
    for one in series:
        upper = [None if v is None else floor[i] + v for i, v in enumerate(one)]
        layers.append((floor, upper))
        floor = [floor[i] if top is None else top for i, top in enumerate(upper)]
    return layers
