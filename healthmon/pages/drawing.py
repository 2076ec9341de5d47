"""A board as the template shows it: words, and ribbons as SVG.  Pure functions."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from healthmon.pages.badge import milliseconds, percent
from healthmon.pages.board import DAYS, WORDS, Board, Line, Outage, Upkeep
from healthmon.truth.machine import DEGRADED, DOWN, UP
from healthmon.truth.uptime import Day

STEP, WIDTH, HEIGHT = 8, 6, 28
# Days that are told of by themselves in a ribbon's words.
MAX_TOLD = 3


def page_context(board: Board) -> dict[str, Any]:
    return {
        "board": board,
        "days": DAYS,
        "groups": [
            {"name": group.name, "lines": [_line(line, board) for line in group.lines]}
            for group in board.groups
        ],
        "open": [_outage(one, board.as_of) for one in board.open],
        "recent": [_outage(one, board.as_of) for one in board.recent],
        "running": [_upkeep(one) for one in board.upkeep if one.running],
        "announced": [_upkeep(one) for one in board.upkeep if not one.running],
        "as_of": moment(board.as_of),
    }


def _line(line: Line, board: Board) -> dict[str, Any]:
    return {
        "name": line.name,
        "status": line.status,
        "word": line.word,
        "since": moment(line.since) if line.since and line.status != UP else "",
        "ribbon": ribbon(line.days) if board.show_uptime and line.days else "",
        "uptime": percent(line.uptime) if line.uptime is not None else "",
        "p95": milliseconds(line.p95_ms) if line.p95_ms is not None else "",
    }


def _outage(one: Outage, now: datetime) -> dict[str, Any]:
    return {
        "id": one.id,
        "target": one.target,
        "opened": moment(one.opened_at),
        "closed": moment(one.closed_at) if one.closed_at else "",
        "lasted": lasted((one.closed_at or now) - one.opened_at),
        "updates": [{"at": moment(update.at), "text": update.text} for update in one.updates],
    }


def _upkeep(one: Upkeep) -> dict[str, Any]:
    return {
        "title": one.title,
        "description": one.description,
        "start": moment(one.start) if one.start else "",
        "end": moment(one.end) if one.end else "",
    }


def moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def lasted(span: timedelta) -> str:
    """Two units at most."""
    minutes = max(0, int(span.total_seconds() // 60))
    if minutes < 1:
        return "less than a minute"
    days, rest = divmod(minutes, 1440)
    hours, minutes = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count)[:40]


def ribbon(days: list[Day]) -> SafeString:
    """A bar a day, the oldest first; days that were not simply up say what they were."""
    width = len(days) * STEP - (STEP - WIDTH)
    plain: dict[str, list[str]] = {}
    told: list[str] = []
    for at, day in enumerate(days):
        if day.status in (DOWN, DEGRADED):
            told.append(
                f'<rect class="s-{day.status}" x="{at * STEP}" width="{WIDTH}" height="{HEIGHT}">'
                f"<title>{escape(_told(day))}</title></rect>"
            )
        else:
            plain.setdefault(day.status, []).append(f"M{at * STEP} 0h{WIDTH}v{HEIGHT}h-{WIDTH}z")
    paths = "".join(
        f'<path class="s-{status}" d="{"".join(parts)}"/>' for status, parts in plain.items()
    )
    return mark_safe(  # noqa: S308  made of numbers, known words and escaped text
        f'<svg class="ribbon" viewBox="0 0 {width} {HEIGHT}" preserveAspectRatio="none" '
        f'role="img" aria-label="{escape(ribbon_words(days))}">{paths}{"".join(told)}</svg>'
    )


def ribbon_words(days: list[Day]) -> str:
    down = [day for day in days if day.status == DOWN]
    degraded = sum(1 for day in days if day.status == DEGRADED)
    said = [f"{len(days)} days"]
    if not down and not degraded:
        said.append("no outage")
    if down:
        said.append(f"{len(down)} with an outage")
    if degraded:
        said.append(f"{degraded} degraded")
    worst = sorted(down, key=lambda day: -day.down_s)[:MAX_TOLD]
    text = ", ".join(said)
    return text + "".join(f"; {_told(day)}" for day in worst)


def _told(day: Day) -> str:
    if day.status == DOWN:
        return f"{day.date:%Y-%m-%d}: down for {lasted(timedelta(seconds=day.down_s))}"
    return f"{day.date:%Y-%m-%d}: {WORDS[day.status].lower()}"
