"""Where refused requests wait a short while for room, and in which order they are let in.

Guarded by the lock of the admission that owns it.  Request threads wait, each on a condition of
its own; whoever gives room back lets them in: tenants in turns, each tenant's in the order in
which they came.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable

from pipeline.runtime.clock import Clock


class Ticket:
    """One request that waits; `admitted` once it was let in."""

    __slots__ = ("admitted", "changed", "nbytes", "records", "tenant")

    def __init__(self, tenant: str, records: int, nbytes: int, lock: threading.Lock) -> None:
        self.tenant, self.records, self.nbytes = tenant, records, nbytes
        self.changed = threading.Condition(lock)
        self.admitted = False


class Promised:
    """What was promised to those let in just now: to all of them, and to each tenant."""

    __slots__ = ("_tenants", "nbytes", "records")

    def __init__(self) -> None:
        self.records = self.nbytes = 0
        self._tenants: dict[str, tuple[int, int]] = {}

    def add(self, ticket: Ticket) -> None:
        self.records += ticket.records
        self.nbytes += ticket.nbytes
        records, nbytes = self.to(ticket.tenant)
        self._tenants[ticket.tenant] = records + ticket.records, nbytes + ticket.nbytes

    def to(self, tenant: str) -> tuple[int, int]:
        """The records and bytes that one tenant was promised."""
        return self._tenants.get(tenant, (0, 0))


# Whether there is room for a ticket besides what was just promised.
Admits = Callable[[Ticket, Promised], bool]


class WaitingRoom:
    """See the module's text."""

    def __init__(self, *, lock: threading.Lock, clock: Clock) -> None:
        self._lock = lock
        self._clock = clock
        self._tenants: OrderedDict[str, deque[Ticket]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def wait(self, tenant: str, records: int, nbytes: int, timeout_s: float) -> bool:
        """Wait to be let in; returns whether that came to be.  The lock is held."""
        ticket = Ticket(tenant, records, nbytes, self._lock)
        due = self._clock.monotonic() + timeout_s
        self._tenants.setdefault(tenant, deque()).append(ticket)
        self._count += 1
        try:
            while not ticket.admitted:
                left = due - self._clock.monotonic()
                if left <= 0:
                    break
                self._clock.wait(ticket.changed, left)
        finally:
            if not ticket.admitted:
                self._remove(ticket)
        return ticket.admitted

    def _remove(self, ticket: Ticket) -> None:
        tickets = self._tenants[ticket.tenant]
        tickets.remove(ticket)
        self._count -= 1
        if not tickets:
            del self._tenants[ticket.tenant]

    def let_in(self, admits: Admits) -> None:
        """Let in whom there is room for, one a tenant and turn.  The lock is held."""
        promised = Promised()
        full: set[str] = set()
        while len(full) < len(self._tenants):
            tenant = next(iter(self._tenants))
            # The others come first next time; without that the loop would not end either.
            self._tenants.move_to_end(tenant)
            if tenant in full:
                continue
            ticket = self._tenants[tenant][0]
            if not admits(ticket, promised):
                full.add(tenant)
                continue
            promised.add(ticket)
            self._admit(ticket)

    def let_all_in(self) -> None:
        """Nobody is to wait any more: each finds out for itself what became of the sink."""
        for tickets in list(self._tenants.values()):
            for ticket in list(tickets):
                self._admit(ticket)

    def _admit(self, ticket: Ticket) -> None:
        self._remove(ticket)
        ticket.admitted = True
        ticket.changed.notify_all()
