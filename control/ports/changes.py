"""Who changed what of a pipeline's settings, and when: told by the apps that keep such settings.

The live page draws each change as a line through its charts.  Filled at `ready()`; the registry has
its own lock, and sources are asked in request threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from control.ports.registry import Registry

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsChange:
    """One change, made at once.  `key` is the pipeline's; secrets are hidden in `what`."""

    at: datetime
    key: str
    name: str
    who: str
    what: tuple[str, ...]
    url: str = ""


ChangeSource = Callable[[datetime], list[SettingsChange]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    source: ChangeSource
    permission: str


_sources: Registry[_Entry] = Registry(what="source of changes")


def register_changes(name: str, source: ChangeSource, *, permission: str) -> None:
    """Name a function that tells the changes since a moment, and whom they may be shown to."""
    _sources.register(name, _Entry(source=source, permission=permission))


def unregister_changes(name: str) -> None:
    _sources.unregister(name)


def changes_since(moment: datetime, *, allows: Callable[[str], bool]) -> list[SettingsChange]:
    """The changes that one may see, the oldest first; a source that fails is left out."""
    found: list[SettingsChange] = []
    for name, entry in _sources.items():
        if not allows(entry.permission):
            continue
        try:
            found += entry.source(moment)
        except Exception:
            logger.exception("changes of settings cannot be told", extra={"source": name})
    return sorted(found, key=lambda change: change.at)
