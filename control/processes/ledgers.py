"""Ledgers of many processes as a table for people and as JSON for programs. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from control.processes.models import Process

_COLUMNS = ("accepted", "redriven", "stored", "already_stored", "dead_lettered")
_HEADINGS = (
    "process",
    "sink",
    "tenant",
    "accepted",
    "redriven",
    "stored",
    "already stored",
    "dead-lettered",
    "dropped",
    "in flight",
    "imbalance",
)


def process_json(process: Process) -> dict[str, Any]:
    return {
        "id": str(process.pk),
        "role": process.role,
        "host": process.host,
        "pid": process.pid,
        "log_id": process.log_id,
        "started_at": process.started_at.isoformat(),
        "last_seen_at": process.last_seen_at.isoformat(),
        "stopped_at": process.stopped_at.isoformat() if process.stopped_at else None,
        "exit_reason": process.exit_reason,
    }


def table(ledgers: Iterable[tuple[Process, Iterable[Mapping[str, Any]]]]) -> str:
    """One line per process, sink and tenant."""
    lines: list[tuple[str, ...]] = [_HEADINGS]
    for process, rows in ledgers:
        lines.extend(_line(process, row) for row in rows)
    if len(lines) == 1:
        return "No process has a ledger."
    widths = [max(len(line[at]) for line in lines) for at in range(len(_HEADINGS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at < 3 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _line(process: Process, row: Mapping[str, Any]) -> tuple[str, ...]:
    dropped = {reason: count for reason, count in (row.get("dropped") or {}).items() if count}
    reasons = " ".join(f"{reason}={count:,}" for reason, count in sorted(dropped.items()))
    return (
        _inert(process),
        _inert(row.get("sink", "")),
        _inert(row.get("tenant", "")),
        *(f"{int(row.get(name, 0)):,}" for name in _COLUMNS),
        reasons or "0",
        f"{int(row.get('in_flight', 0)):,}",
        f"{int(row.get('imbalance', 0)):,}",
    )


def _inert(value: object) -> str:
    """Names come from outside: none of them may steer the terminal."""
    return "".join(char if char.isprintable() else "?" for char in str(value))
