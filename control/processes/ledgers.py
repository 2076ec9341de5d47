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
    "left in log",
    "imbalance",
)


class Totals:
    """Many rows as the law of a stop has them:

    enqueued = flushed_ok + flushed_fail + dropped_on_shutdown + left_in_log (+ in_flight)
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.enqueued = self.flushed_ok = self.flushed_fail = self.dropped_on_shutdown = 0
        self.left_in_log = self.in_flight = self.imbalance = 0
        for row in rows:
            self._add(row)

    def _add(self, row: Mapping[str, Any]) -> None:
        dropped = row.get("dropped") or {}
        on_shutdown = int(dropped.get("shutdown", 0))
        enqueued = _count(row, "accepted", "redriven")
        ok = _count(row, "stored", "already_stored")
        fail = _count(row, "dead_lettered") + sum(map(int, dropped.values())) - on_shutdown
        left, held = _count(row, "left_in_log"), _count(row, "in_flight")
        self.enqueued += enqueued
        self.flushed_ok += ok
        self.flushed_fail += fail
        self.dropped_on_shutdown += on_shutdown
        self.left_in_log += left
        self.in_flight += held
        # Row by row: what one has too much must not hide what another lacks.
        self.imbalance += abs(enqueued - ok - fail - on_shutdown - left - held)

    def as_json(self) -> dict[str, int]:
        return dict(vars(self))

    def __str__(self) -> str:
        ended = ["flushed_ok", "flushed_fail", "dropped_on_shutdown", "left_in_log"]
        if self.in_flight:
            ended.append("in_flight")
        parts = " + ".join(f"{name} {getattr(self, name):,}" for name in ended)
        verdict = f"OUT OF BALANCE BY {self.imbalance:,}" if self.imbalance else "balanced"
        return f"enqueued {self.enqueued:,} = {parts}: {verdict}"


def _count(row: Mapping[str, Any], *names: str) -> int:
    return sum(int(row.get(name, 0)) for name in names)


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
        f"{int(row.get('left_in_log', 0)):,}",
        f"{int(row.get('imbalance', 0)):,}",
    )


def _inert(value: object) -> str:
    """Names come from outside: none of them may steer the terminal."""
    return "".join(char if char.isprintable() else "?" for char in str(value))
