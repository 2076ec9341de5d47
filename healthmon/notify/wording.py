"""What people read: a title, lines for each event, and both as simple HTML.  Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

from control.admin.figures import duration
from control.admin.inert import one_line
from healthmon.notify.kind import Event, Notification

NAME_CHARS = 120
REASON_CHARS = 300
ADDRESS_CHARS = 200
NOTES_CHARS = 1_000
SHORT_NOTES_CHARS = 300
# A message of more events has no notes: it would be a book.
NOTED_EVENTS = 5
# How many targets a title names, and how much of each.
TITLE_NAMES = 3
TITLE_NAMES_OF_SEVERAL = 2
TITLE_NAME_CHARS = 40
# So many events of one target are told in the title one after another.
TITLE_STEPS = 3

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


def title(events: Sequence[Event], *, told: Sequence[tuple[str, str]], summary: bool) -> str:
    """For a subject: `told` are the names of all events with their targets', `events` the first.

    What became of one target is told step by step, several targets by number and the first names.
    """
    targets = {target for _, target in told}
    if len(targets) == 1 and len(told) == len(events) <= TITLE_STEPS:
        steps = ", then ".join(word(event) for event in events)
        text = f"{steps}: {one_line(events[0].target, limit=NAME_CHARS)}"
    else:
        counts = counts_of([name for name, _ in told])
        order = [name for name in _PLURAL if counts.get(name)]
        most = TITLE_NAMES if len(order) == 1 else TITLE_NAMES_OF_SEVERAL
        text = "; ".join(
            f"{counts[name]} {_PLURAL[name]}: "
            + _names([target for event, target in told if event == name], most=most)
            for name in order
        )
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


def facts(event: Event) -> str:
    """How grave it is and where, on one line; "" when neither is known."""
    parts = [event.severity, one_line(event.address, limit=ADDRESS_CHARS)]
    return ", ".join(part for part in parts if part)


def notes(told: Notification, event: Event) -> list[str]:
    """What to do, line by line: in full of one event, shortened to a line of a few."""
    if not event.notes or len(told.events) > NOTED_EVENTS:
        return []
    if len(told.events) > 1:
        return [one_line(event.notes, limit=SHORT_NOTES_CHARS)]
    return event.notes[:NOTES_CHARS].splitlines()


def endings(told: Notification) -> list[str]:
    """What stands after the events."""
    lines = [f"… and {told.more} more."] if told.more else []
    return [*lines, "This is a test: nothing has happened."] if told.test else lines


def list_link(told: Notification, link_base: str) -> str:
    """The address of the list of what is open; "" for one event, which has its own."""
    return "" if len(told.events) == 1 else linked(told.path, link_base)


def linked(path: str, link_base: str) -> str:
    """The whole address; "" when there is no base, or nothing to link to."""
    base = link_base.rstrip("/")
    return f"{base}{path}" if base and path else ""


def plain(told: Notification, *, link_base: str = "") -> str:
    """The whole message as text."""
    lines = []
    for event in told.events:
        lines.append(line(event))
        below = [facts(event), linked(event.path, link_base)]
        lines += [f"  {text}" for text in below if text]
        what_to_do = notes(told, event)
        if what_to_do:
            lines += ["  What to do:", *(f"    {text}" for text in what_to_do)]
    lines += endings(told)
    all_open = list_link(told, link_base)
    if all_open:
        lines.append(f"All that is open: {all_open}")
    return "\n".join(lines)


def html(told: Notification, *, link_base: str = "") -> str:
    """The whole message as HTML that any mail program shows."""
    rows = []
    for event in told.events:
        text = escape(line(event))
        link = linked(event.path, link_base)
        if link:
            text = f'<a href="{escape(link)}">{text}</a>'
        known = facts(event)
        if known:
            text += f"<br>{escape(known)}"
        what_to_do = notes(told, event)
        if what_to_do:
            below = "<br>".join(escape(one) for one in what_to_do)
            text += f"<p>What to do:<br>{below}</p>"
        rows.append(f"<li>{text}</li>")
    parts = [f"<h3>{escape(told.title)}</h3>", f"<ul>{''.join(rows)}</ul>"]
    parts += [f"<p>{escape(text)}</p>" for text in endings(told)]
    all_open = list_link(told, link_base)
    if all_open:
        parts.append(f'<p><a href="{escape(all_open)}">All that is open</a></p>')
    return "".join(parts)


def _names(targets: Sequence[str], *, most: int) -> str:
    distinct = list(dict.fromkeys(targets))
    shown = ", ".join(one_line(name, limit=TITLE_NAME_CHARS) for name in distinct[:most])
    more = len(distinct) - most
    return f"{shown} and {more} more" if more > 0 else shown


def _moment(rfc3339: str) -> str:
    return f"{rfc3339[:10]} {rfc3339[11:19]} UTC"
