"""Tenants in turns: what waits to be batched, by tenant, and whose turn it is.

Records that were read from the log wait here in a queue for each tenant.  A batch of all tenants
is filled by deficit round robin: in each round a tenant may take its quantum, and what it takes
beyond that, as a frame is left whole where it can be, it owes in the next rounds, also when it
comes back after a while.  A tenant that had nothing waiting, and owes nothing, goes before the
others, once: who sends little is served in the next batch, however much the others have waiting.
A quantum of each batch is the others' all the same.

With partitions a batch is filled from one queue alone, which is due by its own size and age.

Within a tenant the order of the log is kept.  A tenant that is parked, as an earlier batch of its
records has not ended, is passed over until it is released; the others go on.

A passive object, guarded by the pipeline's lock.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable

from pipeline.batching.positions import Positions
from pipeline.record import Part

# How many tenants' debts are remembered while they have nothing waiting.
MAX_DEBTS = 10_000


class _Queue:
    """One tenant's records, oldest first.  `debt` is what it took beyond its turns."""

    __slots__ = ("debt", "full", "nbytes", "parts", "records", "ring", "tenant")

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.parts: deque[Part] = deque()
        self.records = 0
        self.nbytes = 0
        self.debt = 0
        # The ring that it stands in, None while it is parked.
        self.ring: OrderedDict[str, _Queue] | None = None
        self.full = False  # among those that are full


class FairQueue:
    """See the module's text.  `records` and `nbytes` are all that waits here, and `held_bytes` what
    admission set aside for it."""

    def __init__(self) -> None:
        self.records = 0
        self.nbytes = 0
        self.held_bytes = 0
        # Of these what is parked.
        self.parked_records = 0
        self.parked_bytes = 0
        self._queues: dict[str, _Queue] = {}
        self._parked: set[str] = set()
        # Those that had nothing waiting, and all others; by tenant, who is next first.
        self._new: OrderedDict[str, _Queue] = OrderedDict()
        self._old: OrderedDict[str, _Queue] = OrderedDict()
        self._positions = Positions()
        # When the head of each queue arrived, where somebody asks; entries outlive their heads.
        self._aged = False
        self._ages: list[tuple[float, int, str]] = []
        self._full: deque[_Queue] = deque()
        # What tenants without anything waiting owe, and since when; and how many records each
        # tenant was entitled to up to now, by which debts are paid.
        self._debts: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._entitled = 0

    def __len__(self) -> int:
        """How many tenants have something waiting."""
        return len(self._queues)

    def by_tenant(self) -> Counter[str]:
        """Records that wait, by tenant."""
        return Counter({name: queue.records for name, queue in self._queues.items()})

    # --- coming in -------------------------------------------------------------------------

    def add(self, part: Part, *, overtaken: bool = False) -> None:
        """Records that follow all earlier ones of their tenant.

        Those that have `overtaken` the line in the log are of a tenant that had nothing waiting.
        """
        self._positions.add(part, overtaken=overtaken)
        queue = self._queues.get(part.tenant)
        if queue is None:
            queue = self._queues[part.tenant] = _Queue(part.tenant)
            queue.debt = self._debt_of(part.tenant)
        queue.parts.append(part)
        queue.records += part.count
        queue.nbytes += part.nbytes
        self._count(part, 1)
        if len(queue.parts) == 1:
            self._note_age(queue)
            if part.tenant not in self._parked:
                self._enter(queue, self._new if overtaken and not queue.debt else self._old)

    def _count(self, part: Part, sign: int) -> None:
        self.records += sign * part.count
        self.nbytes += sign * part.nbytes
        self.held_bytes += sign * part.held_bytes
        if part.tenant in self._parked:
            self.parked_records += sign * part.count
            self.parked_bytes += sign * part.nbytes

    def _enter(self, queue: _Queue, ring: OrderedDict[str, _Queue]) -> None:
        """Be the last of a ring."""
        queue.ring = ring
        ring[queue.tenant] = queue

    def _leave(self, queue: _Queue) -> None:
        if queue.ring is not None:
            del queue.ring[queue.tenant]
            queue.ring = None

    # --- parking ---------------------------------------------------------------------------

    def park(self, tenants: Iterable[str]) -> None:
        """Take nothing of these tenants until they are released."""
        for tenant in tenants:
            if tenant in self._parked:
                continue
            self._parked.add(tenant)
            if (queue := self._queues.get(tenant)) is not None:
                self._leave(queue)
                self.parked_records += queue.records
                self.parked_bytes += queue.nbytes

    def release(self, tenants: Iterable[str]) -> None:
        """These tenants take their turns again."""
        for tenant in tenants:
            if tenant not in self._parked:
                continue
            self._parked.discard(tenant)
            if (queue := self._queues.get(tenant)) is not None:
                self._enter(queue, self._old)
                self._note_age(queue)
                self.parked_records -= queue.records
                self.parked_bytes -= queue.nbytes

    # --- what is due -----------------------------------------------------------------------

    def oldest_s(self) -> float | None:
        """When the oldest record that waits arrived, be its tenant parked or not."""
        first = self.first()
        return None if first is None else first.frame.arrived_s

    def track_ages(self, on: bool) -> None:
        """Whether it is told how old each tenant's records are; `oldest_free` needs it."""
        self._aged, self._ages = on, []
        for queue in self._queues.values() if on else ():
            self._note_age(queue)

    def oldest_free_s(self) -> float | None:
        """When the oldest record arrived that may be taken."""
        ages = self._ages
        while ages:
            arrived_s, _, tenant = ages[0]
            queue = self._queues.get(tenant)
            if (
                queue is not None
                and queue.ring is not None
                and queue.parts[0].frame.arrived_s == arrived_s
            ):
                return arrived_s
            heapq.heappop(ages)
        return None

    def find_full(self, max_records: int, max_bytes: int) -> str | None:
        """A tenant that may be taken and whose own records fill a batch, each in its turn."""
        while self._full:
            queue = self._full[0]
            if queue.ring is not None and _fills(queue, max_records, max_bytes):
                return queue.tenant
            self._full.popleft()
            queue.full = False
        return None

    def look_for_full(self, tenants: Iterable[str], max_records: int, max_bytes: int) -> None:
        """Find those of `tenants` that are full by now."""
        for tenant in tenants:
            queue = self._queues.get(tenant)
            if queue is not None and not queue.full and _fills(queue, max_records, max_bytes):
                queue.full = True
                self._full.append(queue)

    @property
    def tenants(self) -> list[str]:
        return list(self._queues)

    def oldest_free_tenant(self) -> str | None:
        """The tenant whose oldest record has waited longest, of those that may be taken."""
        return self._ages[0][2] if self.oldest_free_s() is not None else None

    # --- going out -------------------------------------------------------------------------

    @property
    def newcomers(self) -> bool:
        """Whether some tenants go before others."""
        return bool(self._new and self._old)

    def take(
        self, max_records: int, max_bytes: int, *, first: bool = True, newcomers: bool = False
    ) -> tuple[list[Part], str]:
        """Parts of a batch of all tenants in turns, and which limit closed it, "" for none.

        The `first` part of a batch may be a record that is larger than the batch.  With
        `newcomers`, of those alone that go before the others.
        """
        parts: list[Part] = []
        room_records, room_bytes = max_records, max_bytes
        quantum = max(1, max_records // max(1, len(self._queues)))
        self._entitled += quantum
        others = quantum if self._old else 0
        while room_records > 0 and room_bytes > 0:
            if newcomers and not self._new:
                return parts, ""
            queue = self._turn(quantum, others_first=room_records <= others and not newcomers)
            if queue is None:
                return parts, ""
            part, closed_by = self._next(queue, room_records, room_bytes, first=first and not parts)
            if part is not None:
                parts.append(part)
                room_records -= part.count
                room_bytes -= part.nbytes
                queue.debt += part.count
                if not queue.parts:
                    self._remember(queue)
            if closed_by:
                return parts, closed_by
        return parts, "size" if room_records <= 0 else "bytes"

    def take_of(self, tenant: str, max_records: int, max_bytes: int) -> tuple[list[Part], str]:
        """As `take`, of one tenant alone."""
        parts: list[Part] = []
        room_records, room_bytes = max_records, max_bytes
        while room_records > 0 and room_bytes > 0:
            queue = self._queues.get(tenant)
            if queue is None:
                return parts, ""
            part, closed_by = self._next(queue, room_records, room_bytes, first=not parts)
            if part is not None:
                parts.append(part)
                room_records -= part.count
                room_bytes -= part.nbytes
            if closed_by:
                return parts, closed_by
        return parts, "size" if room_records <= 0 else "bytes"

    def _turn(self, quantum: int, *, others_first: bool) -> _Queue | None:
        """Whose turn it is; a round that passes pays a quantum of each debt."""
        while True:
            ring = (self._old or self._new) if others_first else (self._new or self._old)
            if not ring:
                return None
            queue = next(iter(ring.values()))
            if queue.debt < quantum:
                return queue
            queue.debt -= quantum
            self._leave(queue)
            self._enter(queue, self._old)

    def _next(
        self, queue: _Queue, room_records: int, room_bytes: int, *, first: bool
    ) -> tuple[Part | None, str]:
        """The next part of a queue that fits, and which limit cut it."""
        part = queue.parts[0]
        if part.count <= room_records and part.nbytes <= room_bytes:
            self._remove_head(queue)
            return part, ""
        fitting, closed_by = fitting_of(part, room_records, room_bytes)
        if not fitting and first:
            fitting = 1  # a record larger than a batch travels alone
        if not fitting:
            return None, closed_by
        self._remove_head(queue)
        if fitting < part.count:
            part, rest = part.split(fitting)
            self._put_back(rest)
        return part, closed_by

    def _put_back(self, rest: Part) -> None:
        queue = self._queues.get(rest.tenant)
        if queue is None:
            queue = self._queues[rest.tenant] = _Queue(rest.tenant)
            queue.debt = self._debt_of(rest.tenant)
        self._positions.put_back(rest)
        queue.parts.appendleft(rest)
        queue.records += rest.count
        queue.nbytes += rest.nbytes
        self._count(rest, 1)
        if queue.ring is None and rest.tenant not in self._parked:
            self._enter(queue, self._old)
        self._note_age(queue)

    def _remove_head(self, queue: _Queue) -> Part:
        part = queue.parts.popleft()
        self._removed(queue, part)
        return part

    def _removed(self, queue: _Queue, part: Part) -> None:
        """A part has left its queue, which may be empty now."""
        self._positions.remove(part)
        queue.records -= part.count
        queue.nbytes -= part.nbytes
        self._count(part, -1)
        if queue.parts:
            self._note_age(queue)
        else:
            del self._queues[queue.tenant]
            self._leave(queue)

    def _remember(self, queue: _Queue) -> None:
        """A tenant that has nothing more waiting owes what it took."""
        self._debts[queue.tenant] = queue.debt, self._entitled
        if len(self._debts) > MAX_DEBTS:
            self._debts.popitem(last=False)

    def _debt_of(self, tenant: str) -> int:
        """What a tenant that comes back still owes."""
        debt, since = self._debts.pop(tenant, (0, 0))
        return max(0, debt - (self._entitled - since))

    def _note_age(self, queue: _Queue) -> None:
        if not self._aged:
            return
        frame = queue.parts[0].frame
        heapq.heappush(self._ages, (frame.arrived_s, frame.position, queue.tenant))
        if len(self._ages) > 4 * len(self._queues) + 64:
            # Most of them have gone: begin anew with those that are.
            self._ages = [
                (one.parts[0].frame.arrived_s, one.parts[0].frame.position, one.tenant)
                for one in self._queues.values()
            ]
            heapq.heapify(self._ages)

    def take_first(self) -> Part | None:
        """The oldest records, whosever they are."""
        first = self.first()
        if first is None:
            return None
        return self._remove_head(self._queues[first.tenant])

    def take_unlogged(self) -> list[Part]:
        """The records that no file holds."""
        unlogged = [part for part in self._positions.parts() if part.frame.file < 0]
        for part in unlogged:
            queue = self._queues[part.tenant]
            queue.parts.remove(part)
            self._removed(queue, part)
        return unlogged

    # --- how far the log is read -----------------------------------------------------------

    def low(self, line_position: int) -> tuple[int, int] | None:
        """The first record that waits here, as a frame's position and a place in its share.

        Below it everything is in a batch, if it is below `line_position`, to which the log has
        been read in its order.  None if nothing below that waits here.
        """
        first = self.first()
        if first is None or first.frame.position >= line_position:
            return None
        return first.frame.position, first.start

    @property
    def remembered(self) -> int:
        """How many frames are remembered because an earlier one has records that wait here."""
        return len(self._positions)

    def first(self) -> Part | None:
        """The part of the frame that came first."""
        return self._positions.first()


def _fills(queue: _Queue, max_records: int, max_bytes: int) -> bool:
    return queue.records >= max_records or queue.nbytes >= max_bytes


def fitting_of(part: Part, room_records: int, room_bytes: int) -> tuple[int, str]:
    """How many of the part's records fit, and which limit says so."""
    fitting = part.fitting(room_bytes)
    if fitting < min(room_records, part.count):
        return fitting, "bytes"
    return min(room_records, part.count), "size"
