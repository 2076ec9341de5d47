"""What the pipelines of this process report: the figures of `Engine.stats()`.

The app that owns the engine registers its function; the heart, `/stats` and the dashboard read
it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

StatsSource = Callable[[], Mapping[str, Any]]

_lock = threading.Lock()
_source: StatsSource | None = None


def register_stats(source: StatsSource | None) -> None:
    """Name the function that reports this process's pipelines; None withdraws it."""
    global _source
    with _lock:
        _source = source


def stats() -> dict[str, Any]:
    """The current figures, or an empty report where this process has no pipelines."""
    with _lock:
        source = _source
    report = dict(source()) if source is not None else {}
    report.setdefault("log_id", "")
    for part in ("pipelines", "ledger", "workers"):
        report.setdefault(part, [])
    return report
