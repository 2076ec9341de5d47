"""Small charts of health: ribbons of days, sparklines of a list, bars of a probe's phases.

SVG drawn on the server, with a title and a description for those who do not see it; status pages
draw with these too.  Colours are classes, so that light and dark are the style sheet's concern,
and height tells what colour tells.  Pure functions; everything from outside is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Protocol

from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe

from control.admin.charts import Series, TimeChart
from control.admin.figures import duration
from healthmon.admin.figures import uptime_text

SPARK_WIDTH, SPARK_HEIGHT = 100.0, 24.0
# How high a day stands, of 100: what is worse stands out by its shape too.
_HEIGHTS = {"up": 70, "degraded": 85, "down": 100, "unknown": 45, "maintenance": 60, "paused": 30}
_NO_DATA = 20


class RibbonDay(Protocol):
    """One day of a ribbon, as `healthmon.truth.uptime.ribbon` tells it."""

    @property
    def date(self) -> date: ...
    @property
    def status(self) -> str: ...
    @property
    def ratio(self) -> float | None: ...
    @property
    def down_s(self) -> float: ...


def ribbon(days: Sequence[RibbonDay], *, label: str) -> SafeString:
    """A bar for each day, the oldest left."""
    if not days:
        return mark_safe("")
    step = 1000.0 / len(days)
    width = max(step * 0.74, 1.0)
    bars = "".join(
        f'<rect class="day day-{_known(day.status)}" x="{index * step:.1f}" width="{width:.1f}" '
        f'y="{100 - _height(day.status)}" height="{_height(day.status)}" rx="2">'
        f"<title>{escape(day_words(day))}</title></rect>"
        for index, day in enumerate(days)
    )
    return format_html(
        '<svg class="ribbon" viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" '
        'aria-label="{}">{}</svg>',
        f"{label}: {ribbon_words(days)}",
        mark_safe(bars),  # noqa: S308 - numbers, words of ours, and escaped titles
    )


def ribbon_words(days: Sequence[RibbonDay]) -> str:
    """The ribbon in a sentence."""
    known = [day for day in days if day.ratio is not None]
    if not known:
        return f"nothing is known of the last {len(days)} days."
    bad = [day for day in known if day.down_s > 0]
    if not bad:
        return f"never down on {_of(0, len(known))} known, of {len(days)}."
    worst = max(bad, key=lambda day: day.down_s)
    return (
        f"down on {_of(len(bad), len(known))} known; longest on "
        f"{worst.date:%d %b}, {duration(worst.down_s)}."
    )


def _of(bad: int, known: int) -> str:
    if known == 1:
        return "the one day that is"
    return f"{bad} of the {known} days that are" if bad else f"the {known} days that are"


def day_words(day: RibbonDay) -> str:
    words = f"{day.date:%Y-%m-%d}: {day.status or 'no data'}"
    if day.ratio is not None:
        words += f", up {uptime_text(day.ratio)}"
    return f"{words}, down {duration(day.down_s)}" if day.down_s > 0 else words


def _known(status: str) -> str:
    return status if status in _HEIGHTS else "none"


def _height(status: str) -> int:
    return _HEIGHTS.get(status, _NO_DATA)


def sparkline(values: Sequence[float | None], *, label: str) -> SafeString:
    """A list's small line; drawn without a template, as a page has a hundred of them."""
    known = [value for value in values if value is not None]
    if not known:
        return mark_safe('<span class="quiet">\N{EN DASH}</span>')
    top = max(known) or 1.0
    step = SPARK_WIDTH / max(len(values) - 1, 1)
    line: list[str] = []
    dots: list[str] = []  # what stands alone would be a line of no length
    fresh = True
    for index, value in enumerate(values):
        if value is None:
            fresh = True
            continue
        # The line's own width stays inside the picture.
        y = SPARK_HEIGHT - 1 - value / top * (SPARK_HEIGHT - 2)
        alone = fresh and (index + 1 == len(values) or values[index + 1] is None)
        if alone:
            dots.append(f"M{min(max(index * step, 2), SPARK_WIDTH - 2):.1f},{max(y, 2):.1f}h0.1")
        else:
            line.append(f"{'M' if fresh else 'L'}{index * step:.1f},{y:.1f}")
        fresh = False
    return format_html(
        '<svg class="sparkline" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" '
        'aria-label="{}"><path class="line c1" d="{}"/>{}</svg>',
        label,
        mark_safe("".join(line)),  # noqa: S308 - numbers only
        format_html('<path class="line c1 alone" d="{}"/>', "".join(dots)) if dots else "",
    )


# --- phases ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    name: str
    css: str
    ms: float


PHASES = (("DNS", "c4", "dns_ms"), ("connect", "c3", "connect_ms"), ("TLS", "c5", "tls_ms"),
          ("first byte", "c1", "first_byte_ms"))  # fmt: skip


def phases(result: object, total_ms: float) -> list[Phase]:
    """What the total is made of; a phase that did not happen is left out."""
    found = []
    rest = total_ms
    for name, css, field in PHASES:
        value = getattr(result, field, None)
        if value is not None and value >= 0:
            found.append(Phase(name=name, css=css, ms=value))
            rest -= value
    if rest > 0.05:
        found.append(Phase(name="rest", css="c6", ms=rest))
    return found


def phase_words(parts: Sequence[Phase]) -> str:
    return ", ".join(f"{part.name} {duration(part.ms / 1000)}" for part in parts)


def phase_bar(parts: Sequence[Phase], *, longest_ms: float) -> SafeString:
    """The phases one after another; `longest_ms` fills the width."""
    scale = 1000.0 / longest_ms if longest_ms > 0 else 0.0
    x, rects = 0.0, []
    for part in parts:
        width = part.ms * scale
        rects.append(
            f'<rect class="phase {part.css}" x="{x:.1f}" width="{max(width, 1.0):.1f}" y="0" '
            f'height="10"><title>{escape(part.name)} {duration(part.ms / 1000)}</title></rect>'
        )
        x += width
    return format_html(
        '<svg class="phases" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" '
        'aria-label="{}">{}</svg>',
        phase_words(parts) or "no phase was measured",
        mark_safe("".join(rects)),  # noqa: S308 - numbers, and names of ours escaped
    )


# --- latency -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A choice of how far back the latency chart looks."""

    key: str
    label: str
    span: timedelta
    points: int
    tick_s: float

    @property
    def step_s(self) -> float:
        return self.span.total_seconds() / self.points


HOUR_S, DAY_S = 3600.0, 86_400.0
WINDOWS = {
    window.key: window
    for window in (
        Window(key="1h", label="1 h", span=timedelta(hours=1), points=60, tick_s=600),
        Window(key="24h", label="24 h", span=timedelta(days=1), points=96, tick_s=4 * HOUR_S),
        Window(key="7d", label="7 d", span=timedelta(days=7), points=84, tick_s=DAY_S),
        Window(key="30d", label="30 d", span=timedelta(days=30), points=120, tick_s=5 * DAY_S),
        Window(key="90d", label="90 d", span=timedelta(days=90), points=90, tick_s=15 * DAY_S),
    )
}


class LatencyPoint(Protocol):
    """As `healthmon.history.queries.latency` tells it: milliseconds, None where nothing is."""

    @property
    def at(self) -> datetime: ...
    @property
    def p50(self) -> float | None: ...
    @property
    def p95(self) -> float | None: ...
    @property
    def p99(self) -> float | None: ...


def latency_chart(points: Sequence[LatencyPoint], window: Window, *, start: datetime) -> TimeChart:
    """The bands of p50, p95 and p99 on an even grid: a time without a result is a gap."""
    columns: dict[str, list[float | None]] = {
        name: [None] * window.points for name in ("p99", "p95", "p50")
    }
    for point in points:
        place = math.floor((point.at - start).total_seconds() / window.step_s)
        if not 0 <= place < window.points:
            continue
        for name, values in columns.items():
            value = getattr(point, name)
            known = values[place]
            if value is not None and (known is None or value / 1000 > known):
                values[place] = value / 1000
    colours = {"p99": 4, "p95": 1, "p50": 3}
    return TimeChart(
        key="latency",
        title="Latency",
        unit="p50, p95 and p99",
        ends_at=start + window.span,
        step_s=window.step_s,
        tick_s=window.tick_s,
        series=[
            Series(name=name, values=values, colour=colours[name], area=True)
            for name, values in columns.items()
        ],
        text=duration,
        empty="No result is stored in this window.",
    )
