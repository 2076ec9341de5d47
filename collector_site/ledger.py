"""The ledger as a table of text, for the end of a process. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = (
    "accepted",
    "redriven",
    "stored",
    "already_stored",
    "dead_lettered",
    "dropped",
    "in_flight",
    "imbalance",
)


def table(stats: Mapping[str, Any], *, pid: int, complete: bool) -> str:
    entries: Sequence[Mapping[str, Any]] = stats.get("ledger", [])
    rows = [_row(entry) for entry in entries]
    balanced = all(not entry.get("imbalance") for entry in entries)
    held = sum(int(entry.get("in_flight", 0)) for entry in entries)
    verdict = "balanced" if balanced else "NOT BALANCED"
    state = "drained" if complete and not held else f"not drained, {held} records undelivered"
    lines = [f"ledger of process {pid}: {state}, {verdict}"]
    if rows:
        heading = ("sink", "tenant", *COLUMNS)
        widths = [max(len(row[i]) for row in (heading, *rows)) for i in range(len(heading))]
        for row in (heading, *rows):
            cells = [
                cell.ljust(width) if index < 2 else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  " + "  ".join(cells).rstrip())
    for entry in entries:
        for reason, count in sorted((entry.get("dropped") or {}).items()):
            if count:
                lines.append(
                    f"  {entry.get('sink', '')}/{entry.get('tenant', '')}: "
                    f"{count} dropped ({reason})"
                )
    return "\n".join(lines) + "\n"


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    dropped = entry.get("dropped") or {}
    total = sum(dropped.values()) if isinstance(dropped, Mapping) else int(dropped)
    figures = {**{name: entry.get(name, 0) for name in COLUMNS}, "dropped": total}
    names = (_plain(entry.get("sink", "")), _plain(entry.get("tenant", "")))
    return (*names, *(str(figures[name]) for name in COLUMNS))


def _plain(name: object) -> str:
    """A name without what could drive a terminal."""
    return "".join(char if char.isprintable() else "?" for char in str(name))
