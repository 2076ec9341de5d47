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

from control.admin import overlays
from control.admin.figures import NOTHING, compact
from control.admin.overlays import Event, Level
from control.admin.paths import (
    HEIGHT,
    TICKS,
    WIDTH,
    Scale,
    Values,
    area_path,
    line_path,
    nice_ticks,
    number,
    stack,
)

COLOURS = 6
DAY_S = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line or area. `colour` is a place in the palette, 1 to 6; it goes round after that.

    A `stepped` one keeps a value until the next: a number of workers is never two and a half.
    """

    name: str
    values: Values
    colour: int = 1
    dashed: bool = False
    area: bool = False
    stepped: bool = False

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
    while there is nothing to draw: say what to do. A level inside the axis is drawn; with
    `reach` the axis reaches up to every level. `whole` keeps the axis to whole numbers.
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
    levels: Sequence[Level] = ()
    reach: bool = False
    events: Sequence[Event] = ()
    steps: Sequence[tuple[int, int]] = ()
    whole: bool = False

    @property
    def layers(self) -> list[Values]:
        return [one.values for one in self.stacked]

    @property
    def count(self) -> int:
        return max((len(one.values) for one in (*self.series, *self.stacked)), default=0)

    @property
    def span_s(self) -> float:
        return self.count * self.step_s

    @property
    def starts_at(self) -> datetime:
        return self.ends_at - timedelta(seconds=self.span_s)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One series as drawn: path data and how it is dressed."""

    name: str
    css: str
    line: str
    fill: str
    dashed: bool
    latest: str


def _marks(chart: TimeChart, scale: Scale) -> list[Mark]:
    drawn = [
        (one, line_path(upper, scale), area_path(upper, scale, floor))
        for one, (floor, upper) in zip(chart.stacked, stack(chart.layers), strict=True)
    ]
    drawn += [
        (
            one,
            line_path(one.values, scale, stepped=one.stepped),
            area_path(one.values, scale) if one.area else "",
        )
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
    peaks += [v for _, upper in stack(chart.layers) for v in upper if v is not None]
    if chart.reach:
        peaks += [level.value for level in chart.levels]
    return max(peaks, default=0.0)


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
    happened: dict[int, list[str]] = {}
    for share, event in _events(chart):
        place = min(int(share / 100 * count), count - 1)
        happened.setdefault(place, []).append(f"{event.number}: {event.words}")
    columns = []
    for index in range(count):
        values = [(one.name, one.values[index]) for one in everything]
        told = [f"{name}: {chart.text(value)}" for name, value in values if value is not None]
        told += happened.get(index, ())
        if not told:
            continue
        words = "\n".join(told)
        moment = timezone.localtime(chart.starts_at + timedelta(seconds=index * chart.step_s))
        when = f"{moment:%Y-%m-%d %H:%M}" if chart.span_s > DAY_S else f"{moment:%H:%M:%S}"
        columns.append((number(index * width), number(width), f"{when}\n{words}"))
    return columns


def _events(chart: TimeChart) -> list[tuple[float, Event]]:
    if not chart.count:
        return []
    return overlays.inside(chart.events, starts_at=chart.starts_at, span_s=chart.span_s)


def _levels(chart: TimeChart, scale: Scale) -> list[overlays.DrawnLevel]:
    return [
        overlays.DrawnLevel(
            y=scale.y(level.value),
            css=f"c{(level.colour - 1) % COLOURS + 1}",
        )
        for level in chart.levels
        if 0 < level.value <= scale.top
    ]


def _level_labels(chart: TimeChart, scale: Scale) -> list[overlays.LevelLabel]:
    return overlays.level_labels(
        [
            (100 - level.value / scale.top * 100, level)
            for level in chart.levels
            if 0 < level.value <= scale.top
        ]
    )


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
    parts += [f"{level.name} at {chart.text(level.value)}" for level in chart.levels]
    told = [f"In {chart.unit}. " + "; ".join(parts) + ".", overlays.told_of(chart.steps)]
    told += [f"{one.number}: {one.words}." for _, one in _events(chart)]
    return " ".join(filter(None, told))


def render(chart: TimeChart) -> SafeString:
    """The chart as HTML. Names of series come from outside and are escaped by the template."""
    count = chart.count
    has_values = any(
        value is not None for one in (*chart.series, *chart.stacked) for value in one.values
    )
    top = chart.ceiling or _top(chart)
    ticks = nice_ticks(max(top, TICKS) if chart.whole else top)
    events = _events(chart) if has_values else []
    scale = Scale(count=count, top=ticks[-1])
    context = {
        "chart": chart,
        "has_values": has_values,
        "width": number(WIDTH),
        "height": number(HEIGHT),
        "y_ticks": [
            (scale.y(value), number(100 - value / ticks[-1] * 100), chart.text(value))
            for value in ticks
        ],
        "x_ticks": time_ticks(chart, count, every=timedelta(seconds=chart.tick_s)) if count else [],
        "marks": _marks(chart, scale) if has_values else [],
        "hovers": _hovers(chart, count) if has_values else [],
        "levels": _levels(chart, scale) if has_values else [],
        "level_labels": _level_labels(chart, scale) if has_values else [],
        "events": [number(share / 100 * WIDTH) for share, _ in events],
        "event_labels": overlays.labels(events),
        "steps": overlays.steps(chart.steps) if has_values else [],
        "description": describe(chart),
    }
    return render_to_string("admin/charts/time_chart.html", context)


def sparkline(values: Values, *, label: str, colour: int = 1) -> SafeString:
    """A small line without axes, for a table cell."""
    known = [value for value in values if value is not None]
    scale = Scale(count=len(values), top=max(known, default=0.0), height=24.0)
    context = {
        "line": line_path(values, scale),
        "fill": area_path(values, scale),
        "label": label,
        "width": number(WIDTH),
        "css": f"c{(colour - 1) % COLOURS + 1}",
    }
    return render_to_string("admin/charts/sparkline.html", context)
