"""A webhook's body as the operator writes it: JSON whose texts may name fields, as `${target}`.

Only texts inside the JSON are filled in, and only after it was parsed: a target's name, whatever
is in it, becomes a part of a text and never of the structure.  A text that is one field alone,
`"${events}"`, becomes the field's own value: a list, a number.  `$$` is a dollar sign.  Names of
members are not filled in.  Bounded in size, depth and number of parts.  Pure functions.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from healthmon.notify import wording
from healthmon.notify.kind import Delivery

MAX_CHARS = 16_000
MAX_DEPTH = 8
MAX_PARTS = 500
MAX_BODY_BYTES = 256 * 1024
MAX_VALUE_CHARS = 4_000

FIELDS = (
    "title", "event", "target", "target_id", "address", "status", "previous", "severity", "reason",
    "at", "duration_s", "incident_id", "group", "tags", "notes", "url", "count", "more", "counts",
    "events", "targets", "text", "rule", "channel", "delivery", "timestamp", "test",
)  # fmt: skip

_FIELD = re.compile(r"\$(?:(\$)|\{([a-z_]{1,32})\}|([a-z_]{1,32})|)")


class TemplateError(ValueError):
    """The template cannot be used; the text says where and why."""


def check(template: Any) -> None:
    """Raise TemplateError when the template could not be filled in."""
    if len(msgspec.json.encode(template)) > MAX_CHARS:
        raise TemplateError(f"is longer than {MAX_CHARS} characters")
    parts = 0

    def walk(node: Any, depth: int) -> None:
        nonlocal parts
        parts += 1
        if parts > MAX_PARTS:
            raise TemplateError(f"has more than {MAX_PARTS} parts")
        if depth > MAX_DEPTH:
            raise TemplateError(f"is nested deeper than {MAX_DEPTH}")
        if isinstance(node, str):
            _check_text(node)
        elif isinstance(node, dict):
            for member in node.values():
                walk(member, depth + 1)
        elif isinstance(node, list):
            for member in node:
                walk(member, depth + 1)

    walk(template, 0)


def fill(template: Any, values: dict[str, Any]) -> bytes:
    """The body.  Raises TemplateError when it is longer than may be sent."""
    body = msgspec.json.encode(_filled(template, values))
    if len(body) > MAX_BODY_BYTES:
        raise TemplateError(f"makes a body longer than {MAX_BODY_BYTES} bytes")
    return body


def values_of(delivery: Delivery, *, text: str) -> dict[str, Any]:
    """Every field.  Those of one target are of the first event."""
    told = delivery.notification
    first = msgspec.to_builtins(told.events[0]) if told.events else {}
    values: dict[str, Any] = {
        name: first.get(name) for name in FIELDS if name in first or name in _OF_EVENT
    }
    values |= {
        "title": told.title,
        "url": wording.linked(told.path or first.get("path", ""), delivery.options.link_base),
        "count": told.count,
        "more": told.more,
        "counts": told.counts,
        "events": [msgspec.to_builtins(event) for event in told.events],
        "targets": [event.target for event in told.events],
        "text": text,
        "rule": told.rule,
        "channel": delivery.channel,
        "delivery": delivery.key,
        "timestamp": delivery.now_s,
        "test": told.test,
    }
    return values


_OF_EVENT = frozenset(
    {"event", "target", "target_id", "address", "status", "previous", "severity", "reason", "at",
     "duration_s", "incident_id", "group", "tags", "notes"}
)  # fmt: skip


def _check_text(text: str) -> None:
    for match in _FIELD.finditer(text):
        name = match[2] or match[3]
        if match[1]:
            continue
        if not name:
            raise TemplateError(f"has a lone $ in {text[:40]!r}; write $$ for a dollar sign")
        if name not in FIELDS:
            raise TemplateError(f"names an unknown field ${name}; known: {', '.join(FIELDS)}")


def _filled(node: Any, values: dict[str, Any]) -> Any:
    if isinstance(node, str):
        whole = _FIELD.fullmatch(node)
        if whole is not None and not whole[1] and (whole[2] or whole[3]):
            return values.get(whole[2] or whole[3])
        return _FIELD.sub(lambda match: _text_of(match, values), node)
    if isinstance(node, dict):
        return {name: _filled(member, values) for name, member in node.items()}
    if isinstance(node, list):
        return [_filled(member, values) for member in node]
    return node


def _text_of(match: re.Match[str], values: dict[str, Any]) -> str:
    if match[1]:
        return "$"
    value = values.get(match[2] or match[3] or "")
    if value is None:
        return ""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= MAX_VALUE_CHARS else text[: MAX_VALUE_CHARS - 1] + "…"
