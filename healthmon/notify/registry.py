"""Finding a kind of channel by its name, or by the dotted path that the settings allow.

Importing is what Python caches, nothing is kept here; any thread may call.
"""

from __future__ import annotations

import importlib

from django.conf import settings

from healthmon.notify.kind import ChannelKind

# In the order in which an operator chooses among them.
BUILT_IN = {
    "webhook": "healthmon.notify.channels.webhook.KIND",
    "email": "healthmon.notify.channels.email.KIND",
    "slack": "healthmon.notify.channels.slack.KIND",
}


class KindError(Exception):
    """A kind of channel cannot be used; the text names it and the setting to change."""


def kind_of(name: str) -> ChannelKind:
    """The kind of that name, or at that dotted path.  Raises KindError."""
    path = BUILT_IN.get(name, name)
    allowed = allowed_paths()
    if name not in BUILT_IN and name not in allowed:
        raise KindError(
            f"there is no kind of channel {name!r}; the built-in ones are {', '.join(BUILT_IN)},"
            f" and COLLECTOR_CHANNEL_KINDS names {', '.join(allowed) or 'no others'}"
        )
    module_name, _, attribute = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module_name), attribute, None)
    except Exception as error:  # a third party's module may fail in any way while it is imported
        raise KindError(
            f"COLLECTOR_CHANNEL_KINDS: {name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(kind, ChannelKind):
        raise KindError(
            f"COLLECTOR_CHANNEL_KINDS: {module_name} has no ChannelKind named {attribute}"
        )
    return kind


def kinds() -> list[tuple[str, ChannelKind]]:
    """What an operator may choose, with what `Channel.kind` holds for each.

    One that cannot be imported is left out.
    """
    found = []
    for name in dict.fromkeys((*BUILT_IN, *allowed_paths())):
        try:
            found.append((name, kind_of(name)))
        except KindError:
            continue
    return found


def allowed_paths() -> tuple[str, ...]:
    return tuple(settings.COLLECTOR.monitoring.channel_kinds)
