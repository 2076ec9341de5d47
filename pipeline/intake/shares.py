"""Who holds how much of one sink's room, and who waits for some: fairness between tenants.

A tenant is active while it holds something or waits; it waits from a refusal until it is admitted,
or until the time at which it should have come back is well past.  Its fair share is the room
divided by the active tenants.

Guarded by the lock of the admission that owns it.  Every question is answered without looking at
other tenants, however many there are; what is remembered is bounded by what is held and by
`MAX_WAITING`.
"""

from __future__ import annotations

from heapq import heappop, heappush

# Tenants that wait are remembered up to here; more of them change no share by much.
MAX_WAITING = 10_000
# For how long after its time a tenant that does not come back is waited for (seconds).
PATIENCE_S = 5.0
# A tenant's own drain rate is that of this window and the one before (seconds).
WINDOW_S = 5.0


class Tenant:
    """What one active tenant holds, and until when it is taken to wait (0: it does not).

    `queued` is the time of its entry in the queue of those who wait, 0 while it has none.
    """

    __slots__ = ("before", "drained", "nbytes", "queued", "records", "waits_until", "window")

    def __init__(self) -> None:
        self.records = 0
        self.nbytes = 0
        self.waits_until = 0.0
        self.queued = 0.0
        self.drained = 0
        self.before = 0
        self.window = 0.0

    def left(self, count: int, now: float) -> None:
        """So many of its records left through the sink."""
        if not self.window:
            self.window = now
        elif now - self.window >= WINDOW_S:
            self.before = self.drained if now - self.window < 2 * WINDOW_S else 0
            self.drained, self.window = 0, now
        self.drained += count

    def drain_rate(self, now: float) -> float:
        """Its records per second that left lately; 0 while none has."""
        if not self.window or now - self.window >= 2 * WINDOW_S:
            return 0.0
        span = now - self.window + (WINDOW_S if self.before else 0.0)
        return (self.before + self.drained) / max(span, 1.0)


class Shares:
    """See the module's text."""

    def __init__(self) -> None:
        self._tenants: dict[str, Tenant] = {}
        self._queue: list[tuple[float, str]] = []  # when to look whether it waits still
        self._swept_at = 2 * MAX_WAITING
        self.waiting = 0

    @property
    def active(self) -> int:
        return len(self._tenants)

    def of(self, tenant: str) -> Tenant:
        """What a tenant holds; of one that is not active a fresh one, which is not kept."""
        return self._tenants.get(tenant) or Tenant()

    def hold(self, tenant: str, records: int, nbytes: int) -> None:
        one = self._tenants.get(tenant)
        if one is None:
            one = self._tenants[tenant] = Tenant()
        elif one.waits_until:
            one.waits_until = 0.0
            self.waiting -= 1
        one.records += records
        one.nbytes += nbytes

    def release(self, tenant: str, records: int, nbytes: int, *, drained_at: float | None) -> None:
        """`drained_at` is when they left through the sink, None if they did not."""
        one = self._tenants.get(tenant)
        if one is None:
            return
        one.records -= records
        one.nbytes -= nbytes
        if one.records <= 0:
            # What was set aside for adopted records is known to the byte for all tenants only.
            one.records = one.nbytes = 0
            if not one.waits_until:
                del self._tenants[tenant]
                return
        if drained_at is not None:
            one.left(records, drained_at)

    def wait(self, tenant: str, now: float, retry_after_s: float) -> None:
        """A tenant was refused, and told when to come back."""
        one = self._tenants.get(tenant)
        until = now + retry_after_s + PATIENCE_S
        if one is None or not one.waits_until:
            if self.waiting >= MAX_WAITING:
                return
            if one is None:
                one = self._tenants[tenant] = Tenant()
            self.waiting += 1
        one.waits_until = until
        if not one.queued:
            self._enqueue(tenant, one)

    def _enqueue(self, tenant: str, one: Tenant) -> None:
        if len(self._queue) >= self._swept_at:
            self._sweep()
        one.queued = one.waits_until
        heappush(self._queue, (one.queued, tenant))

    def _sweep(self) -> None:
        """Let go of the entries of tenants that are gone.

        Done again when there are twice as many as are left: those may all be live ones, and the
        work is spread over the entries that came since.
        """
        tenants = self._tenants
        # What is left in the order of a sorted list is a heap.
        self._queue = sorted(
            (at, name) for at, name in self._queue if name in tenants and tenants[name].queued == at
        )
        self._swept_at = 2 * max(MAX_WAITING, len(self._queue))

    def expire(self, now: float) -> None:
        """Forget who should have come back long ago."""
        while self._queue and self._queue[0][0] <= now:
            at, tenant = heappop(self._queue)
            one = self._tenants.get(tenant)
            if one is None or one.queued != at:
                continue  # of a tenant that was forgotten since
            one.queued = 0.0
            if one.waits_until > now:  # it was refused again meanwhile
                self._enqueue(tenant, one)
            elif one.waits_until:
                one.waits_until = 0.0
                self.waiting -= 1
                if not one.records:
                    del self._tenants[tenant]

    def besides_those_who_wait(self, tenant: str) -> float:
        """How much of the room is left beside the fair shares of the others who wait, 0 to 1."""
        one = self._tenants.get(tenant)
        others = self.waiting - (one is not None and one.waits_until != 0.0)
        return 1.0 - others / len(self._tenants) if others else 1.0

    def within(
        self, tenant: str, records: int, nbytes: int, room_records: float, room_bytes: float
    ) -> bool:
        """Whether a tenant stays within its fair share of some room when it gets so much more.

        A tenant that holds nothing does, whatever it asks for: its share may be less than one
        request, and it would wait for ever.
        """
        one = self._tenants.get(tenant)
        if one is None or not one.records:
            return True
        active = len(self._tenants)
        return (one.records + records) * active <= room_records and (
            one.nbytes + nbytes
        ) * active <= room_bytes
