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
# How full each pipeline was at most since it was last asked, by key, as a share of its capacity.
PeaksSource = Callable[[], Mapping[str, float]]

PartSource = Callable[[], Any]

_lock = threading.Lock()
_source: StatsSource | None = None
_peaks: PeaksSource | None = None
_parts: Registry[PartSource] = Registry(what="part of the statistics")


def register_stats(source: StatsSource | None) -> None:
    """Name the function that reports this process's pipelines; None withdraws it."""
    global _source
    with _lock:
        _source = source


def register_peaks(source: PeaksSource | None) -> None:
    """Name the function that tells how full the pipelines were; None withdraws it."""
    global _peaks
    with _lock:
        _peaks = source


def take_peaks() -> Mapping[str, float]:
    """How full each pipeline was at most since the last call: for the sampler alone."""
    with _lock:
        source = _peaks
    return source() if source is not None else {}


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
