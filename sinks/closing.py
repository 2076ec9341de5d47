"""The ledger as a process leaves it: how what it took in has ended, and what stays in its log.

    enqueued = flushed_ok + flushed_fail + dropped_on_shutdown + left_in_log

Pure functions over `Engine.stats()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHUTDOWN = "shutdown"


def closed(stats: Mapping[str, Any]) -> dict[str, Any]:
    """The figures with a closed ledger: what is held in a log on the disk is left there.

    Without such a log it stays `in_flight`: it ends with the process. Harmless when repeated.
    """
    rows = stats.get("ledger") or []
    logged = in_files(stats)
    return {**stats, "ledger": [_closed(row, logged=logged) for row in rows]}


def in_files(stats: Mapping[str, Any]) -> bool:
    """Whether what this process holds outlives it."""
    state: str = (stats.get("log") or {}).get("state", "memory")
    return state != "memory"


def _closed(row: Mapping[str, Any], *, logged: bool) -> dict[str, Any]:
    dropped = row.get("dropped") or {}
    on_shutdown = int(dropped.get(SHUTDOWN, 0))
    held = int(row.get("in_flight", 0))
    left = int(row.get("left_in_log", 0)) + (held if logged else 0)
    return {
        **row,
        "in_flight": 0 if logged else held,
        "left_in_log": left,
        "enqueued": int(row["accepted"]) + int(row["redriven"]),
        "flushed_ok": int(row["stored"]) + int(row["already_stored"]),
        "flushed_fail": int(row["dead_lettered"]) + sum(dropped.values()) - on_shutdown,
        "dropped_on_shutdown": on_shutdown,
    }


def uneven(row: Mapping[str, Any]) -> int:
    """By how much a closed row does not add up."""
    ended = ("flushed_ok", "flushed_fail", "dropped_on_shutdown", "left_in_log", "in_flight")
    return int(row["enqueued"]) - sum(int(row[name]) for name in ended)
