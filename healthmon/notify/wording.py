"""What people read: a title, a line for each event, and both as simple HTML.  Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

from control.admin.inert import one_line
from healthmon.notify.kind import Event, Notification

NAME_CHARS = 120
REASON_CHARS = 300
NOTES_CHARS = 1_000

_WORDS = {
    "down": "DOWN", "recovered": "RECOVERED", "degraded": "DEGRADED", "unknown": "UNKNOWN",
    "flapping": "FLAPPING", "slo": "OBJECTIVE AT RISK", "certificate": "CERTIFICATE EXPIRES",
    "reminder": "STILL DOWN",
}  # fmt: skip
# An incident may end otherwise than by a recovery.
_ENDINGS = {"paused": "PAUSED", "maintenance": "IN MAINTENANCE", "degraded": "RECOVERED, DEGRADED"}
_PLURAL = {
    "down": "down", "recovered": "recovered", "degraded": "degraded", "unknown": "unknown",
    "flapping": "flapping", "slo": "with an objective at risk",
    "certificate": "with an expiring certificate", "reminder": "still down",
}  # fmt: skip


def word(event: Event) -> str:
    if event.event == "recovered":
        return _ENDINGS.get(event.status, _WORDS["recovered"])
    return _WORDS.get(event.event, event.event.upper())


def title(events: Sequence[Event], *, count: int, counts: dict[str, int], summary: bool) -> str:
    """For a subject: the one target by name, several by number."""
    if count == 1 and events:
        text = f"{word(events[0])}: {one_line(events[0].target, limit=NAME_CHARS)}"
    else:
        order = [name for name in _PLURAL if counts.get(name)]
        text = ", ".join(f"{counts[name]} {_PLURAL[name]}" for name in order)
    return f"Summary of quiet hours: {text}" if summary else text


def counts_of(names: Sequence[str]) -> dict[str, int]:
    return dict(Counter(names))


def line(event: Event) -> str:
    """One event on one line."""
    parts = [f"{word(event)}: {one_line(event.target, limit=NAME_CHARS)}"]
    if event.event == "recovered" and event.duration_s is not None:
        parts.append(f"after {duration(event.duration_s)}")
    elif event.event == "reminder" and event.duration_s is not None:
        parts.append(f"for {duration(event.duration_s)}")
    if event.reason:
        parts.append(f"({one_line(event.reason, limit=REASON_CHARS)})")
    if event.at:
        parts.append(f"at {_moment(event.at)}")
    return " ".join(parts)


def plain(told: Notification, *, link_base: str = "") -> str:
    """The whole message as text."""
    lines = []
    for event in told.events:
        lines.append(line(event))
        if link_base and event.path:
            lines.append(f"  {link_base.rstrip('/')}{event.path}")
        if len(told.events) == 1 and event.notes:
            lines += ["", "Notes:", event.notes[:NOTES_CHARS]]
    if told.more:
        lines.append(f"… and {told.more} more.")
    if told.test:
        lines.append("This is a test: nothing has happened.")
    return "\n".join(lines)


def html(told: Notification, *, link_base: str = "") -> str:
    """The whole message as HTML that any mail program shows."""
    rows = []
    for event in told.events:
        text = escape(line(event))
        if link_base and event.path:
            text = f'<a href="{escape(link_base.rstrip("/") + event.path)}">{text}</a>'
        rows.append(f"<li>{text}</li>")
    parts = [f"<h3>{escape(told.title)}</h3>", f"<ul>{''.join(rows)}</ul>"]
    if len(told.events) == 1 and told.events[0].notes:
        notes = escape(told.events[0].notes[:NOTES_CHARS])
        parts.append(f'<p style="white-space: pre-wrap">{notes}</p>')
    if told.more:
        parts.append(f"<p>… and {told.more} more.</p>")
    if told.test:
        parts.append("<p>This is a test: nothing has happened.</p>")
    return "".join(parts)


def duration(seconds: float) -> str:
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    if whole < 172_800:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} days"


def _moment(rfc3339: str) -> str:
    return f"{rfc3339[:10]} {rfc3339[11:19]} UTC"
