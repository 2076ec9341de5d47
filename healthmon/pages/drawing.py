"""A board as the template shows it: words, and ribbons as SVG.  Pure functions."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from healthmon.pages.badge import milliseconds, percent
from healthmon.pages.board import DAYS, WORDS, Board, Group, Line, Outage, Upkeep
from healthmon.truth.machine import DEGRADED, DOWN, UNKNOWN, UP
from healthmon.truth.uptime import Day

STEP, WIDTH, HEIGHT = 8, 6, 28
# Days that are told of by themselves in a ribbon's words.
MAX_TOLD = 3
# On a page of so many services every group stands open; on a longer one those with a trouble.
ALL_OPEN = 20
# Less than so much of the days is said to be so.
NEARLY_ALL = 0.95
_WORST_FIRST = {status: WORDS[status] for status in (DOWN, DEGRADED, UNKNOWN)} | WORDS


def page_context(board: Board) -> dict[str, Any]:
    return {
        "board": board,
        "days": DAYS,
        "groups": [_group(group, board) for group in board.groups],
        "open": [_outage(one, board.as_of) for one in board.open],
        "recent": [_outage(one, board.as_of) for one in board.recent],
        "running": [_upkeep(one) for one in board.upkeep if one.running],
        "announced": [_upkeep(one) for one in board.upkeep if not one.running],
        "as_of": moment(board.as_of),
    }


def _group(group: Group, board: Board) -> dict[str, Any]:
    troubled = [line for line in group.lines if line.status in (DOWN, DEGRADED, UNKNOWN)]
    return {
        "name": group.name,
        "lines": [_line(line, board) for line in group.lines],
        "count": count(group),
        "is_open": bool(troubled) or len(board.lines) <= ALL_OPEN,
    }


def count(group: Group) -> str:
    """How many are up, and what the others are."""
    found = Counter(line.status for line in group.lines)
    words = [
        f"{found[status]} {word.lower()}" for status, word in _WORST_FIRST.items() if found[status]
    ]
    return words[0] if len(words) == 1 else f"{', '.join(words)} of {len(group.lines)}"


def _line(line: Line, board: Board) -> dict[str, Any]:
    return {
        "name": line.name,
        "status": line.status,
        "word": line.word,
        "since": moment(line.since) if line.since and line.status != UP else "",
        "ribbon": ribbon(line.days) if line.days else "",
        "uptime": percent(line.uptime, aligned=True) if line.uptime is not None else "",
        "known": ""
        if line.known_s >= DAYS * 86_400 * NEARLY_ALL
        else lasted(timedelta(seconds=line.known_s), units=1),
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


def lasted(span: timedelta, *, units: int = 3) -> str:
    """In so many units at most, the greatest first."""
    minutes = max(0, int(span.total_seconds() // 60))
    if minutes < 1:
        return "less than a minute"
    days, rest = divmod(minutes, 1440)
    hours, minutes = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min")]
    return " ".join([f"{count} {unit}" for count, unit in parts if count][:units])


def ribbon(days: list[Day]) -> SafeString:
    """A bar a day, the oldest first; days that were not simply up say what they were."""
    width = len(days) * STEP - (STEP - WIDTH)
    # A run of days is one line, which the style sheet dashes into bars.
    plain: dict[str, list[str]] = {}
    told: list[str] = []
    for status, run in groupby(enumerate(days), key=lambda one: one[1].status):
        some = list(run)
        first = some[0][0]
        if status in (DOWN, DEGRADED):
            told += [
                f'<rect class="s-{status}" x="{at * STEP}" width="{WIDTH}" height="{HEIGHT}">'
                f"<title>{escape(_told(day))}</title></rect>"
                for at, day in some
            ]
        else:
            length = len(some) * STEP - (STEP - WIDTH)
            plain.setdefault(status, []).append(f"M{first * STEP} {HEIGHT // 2}h{length}")
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
