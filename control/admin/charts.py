"""Charts over time, drawn on the server: SVG for the marks, HTML for the words.

The SVG stretches to any width (its strokes do not scale), and the labels are HTML beside it, so a
chart is as legible at 390 px as at 1,600. Colours are CSS classes, so that light and dark are the
style sheet's concern; there is no script. A value that is missing is a gap, never a zero.

Pure functions; the template tags stand in `control/templatetags/collector.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.safestring import SafeString

from control.admin.figures import NOTHING, compact

WIDTH = 1000.0
HEIGHT = 200.0
COLOURS = 6
DAY_S = 86_400.0

Values = Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line or area. `colour` is a place in the palette, 1 to 6; it goes round after that."""

    name: str
    values: Values
    colour: int = 1
    dashed: bool = False
    area: bool = False

    @property
    def latest(self) -> float | None:
        return next((value for value in reversed(self.values) if value is not None), None)

    @property
    def css(self) -> str:
        return f"c{(self.colour - 1) % COLOURS + 1}"


@dataclass(frozen=True, kw_only=True)
class TimeChart:
    """A chart of equally spaced values that end at `ends_at`.

    `stacked` series are drawn as areas on top of each other, `series` as lines (or areas from
    zero) over them. `ceiling` fixes the top of the axis. `empty` stands in the chart's place
    while there is nothing to draw: say what to do.
    """

    key: str
    title: str
    unit: str
    ends_at: datetime
    step_s: float
    series: Sequence[Series] = ()
    stacked: Sequence[Series] = ()
    ceiling: float | None = None
    text: Callable[[float | None], str] = compact
    tick_s: float = 300.0  # seconds from one label of the time axis to the next
    empty: str = "Nothing to draw yet."
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One series as drawn: path data and how it is dressed."""

    name: str
    css: str
    line: str
    fill: str
    dashed: bool
    latest: str


def nice_ticks(top: float, *, count: int = 4) -> list[float]:
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


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


class _Scale:
    def __init__(self, *, count: int, top: float, height: float = HEIGHT) -> None:
        self.count = max(count, 1)
        self.top = top if top > 0 else 1.0
        self.height = height

    def x(self, index: float) -> str:
        return _number((index + 0.5) / self.count * WIDTH)

    def y(self, value: float) -> str:
        return _number(self.height - min(max(value / self.top, 0.0), 1.0) * self.height)

    def points(self, start: int, values: Sequence[float]) -> str:
        return " ".join(f"{self.x(start + i)},{self.y(v)}" for i, v in enumerate(values))


def line_path(values: Values, scale: _Scale) -> str:
    """A line with gaps; a value alone between two gaps is a dot (a stroke of no length)."""
    parts = []
    for start, run in runs(values):
        points = scale.points(start, run)
        parts.append(f"M{points} h0" if len(run) == 1 else f"M{points}")
    return " ".join(parts)


def area_path(values: Values, scale: _Scale, floor: Sequence[float] | None = None) -> str:
    """An area down to `floor` (the stack below), or to zero."""
    parts = []
    for start, run in runs(values):
        below = [0.0] * len(run) if floor is None else list(floor[start : start + len(run)])
        back = " ".join(
            f"{scale.x(start + i)},{scale.y(below[i])}" for i in range(len(run) - 1, -1, -1)
        )
        parts.append(f"M{scale.points(start, run)} L{back}Z")
    return " ".join(parts)


def stack(series: Sequence[Series]) -> list[tuple[list[float], list[float | None]]]:
    """For each series the floor it stands on and its upper edge."""
    length = max((len(one.values) for one in series), default=0)
    floor = [0.0] * length
    layers = []
    for one in series:
        upper = [None if v is None else floor[i] + v for i, v in enumerate(one.values)]
        layers.append((floor, upper))
        floor = [floor[i] if top is None else top for i, top in enumerate(upper)]
    return layers


def _marks(chart: TimeChart, scale: _Scale) -> list[Mark]:
    drawn = [
        (one, line_path(upper, scale), area_path(upper, scale, floor))
        for one, (floor, upper) in zip(chart.stacked, stack(chart.stacked), strict=True)
    ]
    drawn += [
        (one, line_path(one.values, scale), area_path(one.values, scale) if one.area else "")
        for one in chart.series
    ]
    return [
        Mark(
            name=one.name,
            css=one.css,
            line=line,
            fill=fill,
            dashed=one.dashed,
            latest=chart.text(one.latest),
        )
        for one, line, fill in drawn
    ]


def _top(chart: TimeChart) -> float:
    peaks = [v for one in chart.series for v in one.values if v is not None]
    peaks += [v for _, upper in stack(chart.stacked) for v in upper if v is not None]
    return max(peaks, default=0.0)


def _count(chart: TimeChart) -> int:
    return max((len(one.values) for one in (*chart.series, *chart.stacked)), default=0)


def time_ticks(chart: TimeChart, count: int, *, every: timedelta) -> list[tuple[float, str]]:
    """Round times inside the chart as (percent of the width, label in the display time zone)."""
    span = count * chart.step_s
    starts_at = chart.ends_at - timedelta(seconds=span)
    seconds = every.total_seconds()
    first = math.ceil(starts_at.timestamp() / seconds) * seconds
    ticks = []
    at = first
    while at <= chart.ends_at.timestamp():
        share = (at - starts_at.timestamp()) / span * 100
        if 4 <= share <= 96:  # a label at the very edge would be cut off
            moment = timezone.localtime(datetime.fromtimestamp(at, tz=UTC))
            words = f"{moment:%d %b}" if seconds >= DAY_S else f"{moment:%H:%M}"
            ticks.append((round(share, 2), words))
        at += seconds
    return ticks


def _hovers(chart: TimeChart, count: int) -> list[tuple[str, str, str]]:
    """One invisible column per moment whose title the browser shows on hover."""
    everything = (*chart.stacked, *chart.series)
    width = WIDTH / max(count, 1)
    span_s = count * chart.step_s
    starts_at = chart.ends_at - timedelta(seconds=span_s)
    columns = []
    for index in range(count):
        values = [(one.name, one.values[index]) for one in everything]
        if all(value is None for _, value in values):
            continue
        moment = timezone.localtime(starts_at + timedelta(seconds=index * chart.step_s))
        words = "\n".join(
            f"{name}: {chart.text(value)}" for name, value in values if value is not None
        )
        when = f"{moment:%Y-%m-%d %H:%M}" if span_s > DAY_S else f"{moment:%H:%M:%S}"
        columns.append((_number(index * width), _number(width), f"{when}\n{words}"))
    return columns


def describe(chart: TimeChart) -> str:
    """The chart in a sentence, for those who do not see it."""
    parts = []
    for one in (*chart.stacked, *chart.series):
        known = [value for value in one.values if value is not None]
        if known:
            parts.append(
                f"{one.name}: latest {chart.text(one.latest)}, highest {chart.text(max(known))}"
            )
        else:
            parts.append(f"{one.name}: {NOTHING}")
    return f"In {chart.unit}. " + "; ".join(parts) + "."


def render(chart: TimeChart) -> SafeString:
    """The chart as HTML. Names of series come from outside and are escaped by the template."""
    count = _count(chart)
    has_values = any(
        value is not None for one in (*chart.series, *chart.stacked) for value in one.values
    )
    ticks = nice_ticks(chart.ceiling or _top(chart))
    scale = _Scale(count=count, top=ticks[-1])
    context = {
        "chart": chart,
        "has_values": has_values,
        "width": _number(WIDTH),
        "height": _number(HEIGHT),
        "y_ticks": [
            (scale.y(value), _number(100 - value / ticks[-1] * 100), chart.text(value))
            for value in ticks
        ],
        "x_ticks": time_ticks(chart, count, every=timedelta(seconds=chart.tick_s)) if count else [],
        "marks": _marks(chart, scale) if has_values else [],
        "hovers": _hovers(chart, count) if has_values else [],
        "description": describe(chart),
    }
    return render_to_string("admin/charts/time_chart.html", context)


def sparkline(values: Values, *, label: str, colour: int = 1) -> SafeString:
    """A small line without axes, for a table cell."""
    known = [value for value in values if value is not None]
    scale = _Scale(count=len(values), top=max(known, default=0.0), height=24.0)
    context = {
        "line": line_path(values, scale),
        "fill": area_path(values, scale),
        "label": label,
        "width": _number(WIDTH),
        "css": f"c{(colour - 1) % COLOURS + 1}",
    }
    return render_to_string("admin/charts/sparkline.html", context)
