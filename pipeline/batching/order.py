"""Order within each tenant: which batches must end before which others may be sent.

For a sink that asks for it.  Every batch that was formed and has not ended holds its tenants: their
later records are held back, and of two batches with a tenant in common the earlier goes first.
Logs are apart: each process has its own, and no order between them is known.

A passive object, guarded by the pipeline's lock.
"""

from __future__ import annotations

from collections.abc import Iterable

Key = tuple[str, str]


class TenantOrder:
    """See the module's text."""

    def __init__(self) -> None:
        self._numbers: dict[Key, set[int]] = {}
        self._tenants: dict[tuple[str, int], frozenset[str]] = {}

    def hold(self, log_id: str, number: int, tenants: Iterable[str]) -> None:
        """A batch was formed of records of these tenants."""
        self._tenants[log_id, number] = of = frozenset(tenants)
        for tenant in of:
            self._numbers.setdefault((log_id, tenant), set()).add(number)

    def release(self, log_id: str, number: int) -> list[str]:
        """A batch has ended, or was cut into others; returns the tenants that are free now."""
        free = []
        for tenant in self._tenants.pop((log_id, number), ()):
            numbers = self._numbers[log_id, tenant]
            numbers.discard(number)
            if not numbers:
                del self._numbers[log_id, tenant]
                free.append(tenant)
        return free

    def may_go(self, log_id: str, number: int) -> bool:
        """Whether no earlier batch of any of its tenants is still under way."""
        return all(
            number <= min(self._numbers[log_id, tenant])
            for tenant in self._tenants.get((log_id, number), ())
        )

    def held(self, log_id: str) -> list[str]:
        """The tenants of a log whose records are held back."""
        return [tenant for log, tenant in self._numbers if log == log_id]
