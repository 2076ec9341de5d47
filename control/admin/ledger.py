"""The tallies as the dashboard shows them: each sink's ledger over processes and tenants.

Processes write their ledger as JSON with each heartbeat; a figure that is missing (a process of
another version wrote it) reads as zero. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

TENANTS_SHOWN = 20
LEDGER_FIELDS = ("accepted", "redriven", "stored", "already_stored", "dead_lettered", "in_flight")


def int_of(data: Mapping[str, Any], name: str) -> int:
    value = data.get(name)
    return int(value) if isinstance(value, int | float) else 0


def float_of(data: Mapping[str, Any], name: str) -> float | None:
    value = data.get(name)
    return float(value) if isinstance(value, int | float) else None


def dropped_of(data: Mapping[str, Any]) -> int:
    dropped = data.get("dropped")
    if isinstance(dropped, Mapping):
        return sum(value for value in dropped.values() if isinstance(value, int))
    return int_of(data, "dropped")


@dataclass(kw_only=True)
class LedgerView:
    """One sink's tallies over processes and tenants, and whether they add up."""

    sink: str
    name: str = ""
    accepted: int = 0
    redriven: int = 0
    stored: int = 0
    already_stored: int = 0
    dead_lettered: int = 0
    dropped: int = 0
    in_flight: int = 0
    imbalance: int = 0
    dropped_by: dict[str, int] = field(default_factory=dict)
    by_tenant: dict[str, LedgerView] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        for name in LEDGER_FIELDS:
            setattr(self, name, getattr(self, name) + int_of(row, name))
        self.dropped += dropped_of(row)
        dropped = row.get("dropped")
        if isinstance(dropped, Mapping):
            for reason, count in dropped.items():
                if isinstance(count, int) and count:
                    self.dropped_by[str(reason)] = self.dropped_by.get(str(reason), 0) + count
        # Imbalances of opposite sign must not cancel out.
        self.imbalance += abs(int_of(row, "imbalance"))

    def add_tenant(self, row: Mapping[str, Any]) -> None:
        """Count a row under its tenant as well as in the whole."""
        self.add(row)
        tenant = str(row.get("tenant") or "default")
        view = self.by_tenant.setdefault(tenant, LedgerView(sink=self.sink, name=tenant))
        view.add(row)

    @property
    def tenants(self) -> list[LedgerView]:
        """The tenants to show where there are several: out of balance first, then the busiest."""
        if len(self.by_tenant) < 2:
            return []
        return sorted(
            self.by_tenant.values(), key=lambda one: (not one.imbalance, -one.accepted, one.name)
        )[:TENANTS_SHOWN]

    @property
    def more_tenants(self) -> int:
        return max(0, len(self.by_tenant) - TENANTS_SHOWN)

    @property
    def settled(self) -> int:
        return self.stored + self.already_stored + self.dead_lettered + self.dropped


def ledger_views(rows: Iterable[Any], names: Mapping[str, str]) -> list[LedgerView]:
    views: dict[str, LedgerView] = {}
    for row in rows:
        if isinstance(row, Mapping):
            sink = str(row.get("sink") or "?")
            view = views.setdefault(sink, LedgerView(sink=sink, name=names.get(sink, sink)))
            view.add_tenant(row)
    return sorted(views.values(), key=lambda view: view.name)


def accepted_in(ledger: Any) -> int:
    """Records that a process accepted, over its sinks."""
    rows = ledger if isinstance(ledger, list) else []
    return sum(int_of(row, "accepted") for row in rows if isinstance(row, Mapping))
