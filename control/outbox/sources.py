"""Where messages come from that are not made at once: an app's gathered events, when they are due.

A source is called on the outbox's thread before each look at the messages, in every process that
delivers; it must be short, ask its database by an index, and make each message once.  Filled at
`ready()`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeAlias

from control.ports.registry import Registry

Source: TypeAlias = Callable[[datetime], object]

_sources: Registry[Source] = Registry(what="source of messages")


def register_source(name: str, source: Source) -> None:
    """Have `source(now)` called before each look; the same name again replaces it."""
    _sources.register(name, source)


def unregister_source(name: str) -> None:
    _sources.unregister(name)


def sources() -> list[tuple[str, Source]]:
    return _sources.items()
