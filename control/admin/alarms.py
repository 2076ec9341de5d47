"""Ledgers that do not balance, as processes report them: which, by how much, since when.

A living process checks every second and reports what has lasted; of one that has ended, the last
ledger it wrote tells. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from control.admin.ledger import int_of
from control.admin.moments import moment


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """One sink and tenant whose ledger has not balanced, in one process."""

    process: Any
    sink: str
    tenant: str
    records: int
    since: datetime | None
    log_id: str


def alarms_of(process: Any, *, state: str) -> list[Alarm]:
    """What a process says of itself, or what its last ledger shows."""
    told = process.stats.get("alarms") if isinstance(process.stats, Mapping) else None
    if state == "alive" and isinstance(told, list):
        return list(_told(process, told))
    rows = process.ledger if isinstance(process.ledger, list) else []
    since = {
        (alarm.sink, alarm.tenant): alarm.since
        for alarm in _told(process, told if isinstance(told, list) else [])
    }
    return [
        Alarm(
            process=process,
            sink=str(row.get("sink") or "?"),
            tenant=str(row.get("tenant") or "default"),
            records=int_of(row, "imbalance"),
            since=since.get((str(row.get("sink")), str(row.get("tenant")))),
            log_id=process.log_id,
        )
        for row in rows
        if isinstance(row, Mapping) and int_of(row, "imbalance")
    ]


def _told(process: Any, rows: list[Any]) -> Iterable[Alarm]:
    for row in rows:
        if isinstance(row, Mapping) and row.get("kind") == "imbalance":
            yield Alarm(
                process=process,
                sink=str(row.get("sink") or "?"),
                tenant=str(row.get("tenant") or "default"),
                records=int_of(row, "records"),
                since=moment(row.get("since")),
                log_id=str(row.get("log_id") or ""),
            )
