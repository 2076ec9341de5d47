"""What the pipelines of this process report: the figures of `Engine.stats()`.

The app that owns the engine registers its function; the heart, `/stats` and the dashboard read
it. Whoever watches over the engine adds what it found as a part of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from control.ports.registry import Registry

StatsSource = Callable[[], Mapping[str, Any]]

PartSource = Callable[[], Any]

_lock = threading.Lock()
_source: StatsSource | None = None
_parts: Registry[PartSource] = Registry(what="part of the statistics")


def register_stats(source: StatsSource | None) -> None:
    """Name the function that reports this process's pipelines; None withdraws it."""
    global _source
    with _lock:
        _source = source


def register_stats_part(name: str, source: PartSource) -> None:
    """Add `source()` to the report as `name`; it is called on any thread and must be quick."""
    _parts.register(name, source)


def unregister_stats_part(name: str) -> None:
    _parts.unregister(name)


def stats() -> dict[str, Any]:
    """The current figures, or an empty report where this process has no pipelines."""
    with _lock:
        source = _source
    report = dict(source()) if source is not None else {}
    report |= {name: part() for name, part in _parts.items()}
    report.setdefault("log_id", "")
    for part in ("pipelines", "ledger", "workers"):
        report.setdefault(part, [])
    return report
