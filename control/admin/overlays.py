"""What is drawn on a chart besides its series: levels across it, events through it, steps under it.

A level is a bound that a value is measured by (a watermark, the most workers). An event is a
moment at which somebody changed something, numbered as in the list beside the chart. A step is one
decision of the scaler. Marks are SVG, their words HTML, as those of the chart itself.

Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

# Labels closer than this many percent of the width would lie on each other.
APART = 3.0
# The same for the labels of levels, of the height; a label is 12 of 148 px high.
LEVELS_APART = 8.2
UP, DOWN = "up", "down"
_GLYPHS = {UP: "\N{BLACK UP-POINTING TRIANGLE}", DOWN: "\N{BLACK DOWN-POINTING TRIANGLE}"}


@dataclass(frozen=True, kw_only=True)
class Level:
    """A line across the chart at `value`."""

    value: float
    name: str
    colour: int = 6


@dataclass(frozen=True, kw_only=True)
class Event:
    """A line through the chart at a moment. `number` is its place in the list that explains it."""

    at: datetime
    number: str
    words: str


@dataclass(frozen=True, kw_only=True)
class DrawnLevel:
    y: str
    css: str


@dataclass(frozen=True, kw_only=True)
class LevelLabel:
    share: str
    name: str


@dataclass(frozen=True, kw_only=True)
class DrawnEvent:
    """Events that are too close to be told apart share one label."""

    share: str
    label: str


@dataclass(frozen=True, kw_only=True)
class DrawnStep:
    share: str
    glyph: str
    kind: str


def share_of(at: datetime, *, starts_at: datetime, span_s: float) -> float:
    """Where a moment lies in a stretch of time, in percent."""
    return (at - starts_at).total_seconds() / span_s * 100


def inside(
    events: Sequence[Event], *, starts_at: datetime, span_s: float
) -> list[tuple[float, Event]]:
    """The events that the chart reaches, in order, each with its place in percent."""
    placed = [(share_of(one.at, starts_at=starts_at, span_s=span_s), one) for one in events]
    return sorted(
        ((share, one) for share, one in placed if 0 <= share <= 100), key=lambda pair: pair[0]
    )


def labels(placed: Sequence[tuple[float, Event]]) -> list[DrawnEvent]:
    """One label for an event, or for several that stand close together: "2" or "2-4"."""
    groups: list[list[tuple[float, Event]]] = []
    for share, one in placed:
        if groups and share - groups[-1][0][0] < APART:
            groups[-1].append((share, one))
        else:
            groups.append([(share, one)])
    drawn = []
    for group in groups:
        first, last = group[0][1].number, group[-1][1].number
        label = first if len(group) == 1 else f"{first}\N{EN DASH}{last}"
        drawn.append(DrawnEvent(share=_share(group[0][0]), label=label))
    return drawn


def level_labels(placed: Sequence[tuple[float, Level]]) -> list[LevelLabel]:
    """One label for a level, or for several that lie too close for one each, at the highest.

    Each stands with its place in percent from the top.  "min = max", or "refuse, shed".
    """
    groups: list[list[tuple[float, Level]]] = []
    for share, one in sorted(placed, key=lambda pair: pair[0]):
        if groups and share - groups[-1][0][0] < LEVELS_APART:
            groups[-1].append((share, one))
        else:
            groups.append([(share, one)])
    drawn = []
    for group in groups:
        same = all(one.value == group[0][1].value for _, one in group)
        names = (" = " if same else ", ").join(one.name for _, one in group)
        drawn.append(LevelLabel(share=_share(group[0][0]), name=names))
    return drawn


def steps(counts: Sequence[tuple[int, int]]) -> list[DrawnStep]:
    """A triangle under each bucket in which workers came or went; two where both did."""
    drawn = []
    for index, (up, down) in enumerate(counts):
        share = _share((index + 0.5) / len(counts) * 100)
        for kind, count in ((UP, up), (DOWN, down)):
            if count:
                drawn.append(DrawnStep(share=share, glyph=_GLYPHS[kind], kind=kind))
    return drawn


def told_of(counts: Sequence[tuple[int, int]]) -> str:
    """The steps in words, for those who do not see them."""
    up, down = sum(one for one, _ in counts), sum(one for _, one in counts)
    if not up and not down:
        return ""
    return f"The scaler went up {_times(up)} and down {_times(down)}."


def _times(count: int) -> str:
    return {0: "never", 1: "once"}.get(count, f"{count} times")


def _share(value: float) -> str:
    return f"{value:.2f}"
