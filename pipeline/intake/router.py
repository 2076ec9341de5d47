"""Which records go to which sink: a route is a filter on type, tenant and severity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What one sink takes; None means all.  Never changed.

    `min_severity` is an OpenTelemetry number (1 to 24): records below it go by; 0 takes all.
    `kept` are the types that a route which names none does not take.
    """

    types: frozenset[str] | None = None
    kept: frozenset[str] = frozenset()
    tenants: frozenset[str] | None = None
    min_severity: int = 0

    def takes(self, type: str, tenant: str) -> bool:
        """Whether any record of this type and tenant can pass; severity is asked per record."""
        wanted = type not in self.kept if self.types is None else type in self.types
        return wanted and (self.tenants is None or tenant in self.tenants)

    def passing(self, records: Sequence[Record]) -> list[Record]:
        """The records that pass the severity filter."""
        least = self.min_severity
        return [record for record in records if record.severity >= least]
