"""What was changed of a sink's settings, by whom: written where it is done, told to the live page.

Whoever changes a row (the admin, `config apply`) says so here, within its own transaction: a change
that is in force is known, and one that was rolled back is not.  Runs in request threads and in
commands; keeps nothing.
"""

from __future__ import annotations

import os
import pwd
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from control.config.export import HIDDEN
from control.ports.changes import SettingsChange, register_changes
from sinks.differences import Difference, difference, shown
from sinks.models import SinkChange, SinkConfig
from sinks.options import describe_options
from sinks.registry import BackendError, load_backend
from sinks.tuning import as_overrides

KEPT = timedelta(days=90)
# A page tells of so many at most, a row of so many settings, each so long.
MAX_TOLD = 200
MAX_FIELDS = 60
MAX_VALUE = 200
PERMISSION = "sinks.view_sinkconfig"

_SWITCHES = {
    ("paused", True): "paused",
    ("paused", False): "resumed",
    ("enabled", True): "enabled",
    ("enabled", False): "disabled",
}
# Long lists (tenants) say more by their size than by the beginning of what they hold.
_COUNTED = 5
# The name under which the value of a setting that was left out is written down.
DEFAULT = "default"


def register() -> None:
    """Let the live page ask."""
    register_changes("sinks", told_since, permission=PERMISSION)


def as_it_was(row: SinkConfig) -> SinkConfig | None:
    """The stored row before it is changed; None for one that is new."""
    return SinkConfig.objects.filter(pk=row.pk).first()


def record(before: SinkConfig | None, after: SinkConfig | None, *, who: str) -> SinkChange | None:
    """Write a change down.  Nothing where nothing differs; `before` is None for a new sink."""
    row = after or before
    if row is None:
        return None
    fields = _fields(before, after)
    if before is not None and after is not None and not fields:
        return None
    action = SinkChange.ADDED if before is None else SinkChange.CHANGED
    if after is None:
        action, fields = SinkChange.REMOVED, {}
    now = timezone.now()
    SinkChange.objects.filter(at__lt=now - KEPT).delete()
    return SinkChange.objects.create(
        at=now,
        key=str(row.pk),
        name=row.name,
        action=action,
        who=who[:150],
        fields={name: list(pair) for name, pair in list(fields.items())[:MAX_FIELDS]},
    )


def command_user() -> str:
    """Who runs this command: the account's name, or its number where it has none."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"user {uid}"
    return f"{name} (config apply)"


def told_since(moment: datetime) -> list[SettingsChange]:
    """The newest changes since `moment`."""
    rows = SinkChange.objects.filter(at__gte=moment).order_by("-at", "-id")[:MAX_TOLD]
    return [
        SettingsChange(
            at=row.at,
            key=row.key,
            name=row.name,
            who=row.who,
            what=tuple(words(row)),
            url=_url(row),
        )
        for row in rows
    ]


def words(row: SinkChange) -> list[str]:
    """What was changed, a line each: "max_workers: 4 (default) → 8"."""
    if row.action == SinkChange.REMOVED:
        return ["sink removed"]
    if row.action == SinkChange.ADDED:
        return ["sink added"]
    lines = []
    for name, pair in sorted(row.fields.items()):
        before, after = pair
        if isinstance(after, bool) and (name, after) in _SWITCHES:
            lines.append(_SWITCHES[name, after])
        elif HIDDEN in (before, after):
            lines.append(f"{name} changed (hidden)")
        else:
            lines.append(f"{name}: {_text(before)} \N{RIGHTWARDS ARROW} {_text(after)}")
    return lines


def _fields(before: SinkConfig | None, after: SinkConfig | None) -> Difference:
    changed = difference(_flat(before), _flat(after))
    row = after or before
    if row is None or before is None or after is None:
        return {name: (_short(old), _short(new)) for name, (old, new) in changed.items()}
    defaults = _in_force(row)
    return {
        name: (_told(old, defaults.get(name)), _told(new, defaults.get(name)))
        for name, (old, new) in changed.items()
    }


def _in_force(row: SinkConfig) -> dict[str, Any]:
    """What holds where a setting is left out, at this moment."""
    options = {f"options.{name}": value for name, value in _defaults(row).items()}
    return {**options, **as_overrides(settings.COLLECTOR.pipeline)}


def _told(value: Any, default: Any) -> Any:
    """A value to write down; what was left out, with what held in its place."""
    if value in (None, "default") and default is not None:
        return {DEFAULT: _short(default)}
    return _short(value)


def _flat(row: SinkConfig | None) -> dict[str, Any]:
    """The settings, those of the pipeline one by one, by their own names."""
    if row is None:
        return {}
    told_of = {"name": row.name, **shown(row)}
    for name, default in _defaults(row).items():
        # A form leaves out what is as ever: that is no change.
        if told_of.get(f"options.{name}") == default:
            del told_of[f"options.{name}"]
    pipeline = told_of.pop("pipeline")
    return {**told_of, **pipeline}


def _defaults(row: SinkConfig) -> dict[str, Any]:
    try:
        options = describe_options(load_backend(row.backend, row=row.name).cls.Options)
    except BackendError:
        return {}
    return {option.name: option.default for option in options if option.default is not None}


def _short(value: Any) -> Any:
    if isinstance(value, list):
        listed = ", ".join(map(str, value[:_COUNTED]))
        more = len(value) - _COUNTED
        value = f"{listed} and {more} more" if more > 0 else listed
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + "…"


def _text(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, dict):
        return f"{_text(value.get(DEFAULT))} (default)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value) or "none"


def _url(row: SinkChange) -> str:
    if row.action == SinkChange.REMOVED:
        return ""
    try:
        return reverse("admin:sinks_sinkconfig_change", args=[row.key])
    except NoReverseMatch:
        return ""
