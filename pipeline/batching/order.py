"""Order within each tenant: which batches must end before which others may be sent.

For a sink that asks for it.  Every batch that was formed and has not ended holds its tenants: their
later records are held back, and of two batches with a tenant in common that goes first whose
records of it came first.  Batch numbers do not tell, as what a batch is cut into is numbered later.
Logs are apart: each process has its own, and no order between them is known.

A passive object, guarded by the pipeline's lock.
"""

from __future__ import annotations

from collections.abc import Mapping

# Where a record stands: its frame's position, and its place in the share.
Place = tuple[int, int]


class TenantOrder:
    """See the module's text."""

    def __init__(self) -> None:
        # By log and tenant, by the batch's number: where its first record of the tenant stands.
        self._firsts: dict[tuple[str, str], dict[int, Place]] = {}
        self._tenants: dict[tuple[str, int], tuple[str, ...]] = {}

    def hold(self, log_id: str, number: int, firsts: Mapping[str, Place]) -> None:
        """A batch was formed; `firsts` tells for each of its tenants where its first record is."""
        self._tenants[log_id, number] = tuple(firsts)
        for tenant, place in firsts.items():
            self._firsts.setdefault((log_id, tenant), {})[number] = place

    def release(self, log_id: str, number: int) -> list[str]:
        """A batch has ended, or was cut into others; returns the tenants that are free now."""
        free = []
        for tenant in self._tenants.pop((log_id, number), ()):
            firsts = self._firsts[log_id, tenant]
            del firsts[number]
            if not firsts:
                del self._firsts[log_id, tenant]
                free.append(tenant)
        return free

    def may_go(self, log_id: str, number: int) -> bool:
        """Whether no earlier batch of any of its tenants is still under way."""
        for tenant in self._tenants.get((log_id, number), ()):
            firsts = self._firsts[log_id, tenant]
            if firsts[number] != min(firsts.values()):
                return False
        return True

    def held(self, log_id: str) -> list[str]:
        """The tenants of a log whose records are held back."""
        return [tenant for log, tenant in self._firsts if log == log_id]
