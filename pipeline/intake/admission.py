"""Admission: room in one pipeline, reserved before anything is appended.

Request threads reserve and may wait for room, workers release.  `_lock` guards what is held, by
whom, who waits, and what follows from it; it is a leaf: nothing else is taken while it is held.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from functools import partial

from pipeline.errors import Saturated
from pipeline.intake.comebacks import Comebacks, Turn
from pipeline.intake.drainrate import DrainRate
from pipeline.intake.marks import Marks
from pipeline.intake.refusals import RETRY_AFTER_MAX_S, Standing
from pipeline.intake.shares import Shares
from pipeline.intake.waitingroom import Promised, Ticket, WaitingRoom
from pipeline.runtime.clock import Clock
from pipeline.settings import PipelineSettings


class Closed(Exception):
    """This pipeline takes nothing any more: the offer has to be routed again."""


# Why an offer is refused.
FULL, BEYOND_SHARE, ABOVE_MARK = "full", "beyond_share", "above_mark"


class Admission:
    """How much one sink's records may occupy, by count and by encoded bytes, and by tenant.

    Above the high watermark offers are refused until what is held has fallen to the low one, but
    for those of tenants that hold less than their fair share of the room below the low one: a
    tenant that floods does not shut the others out.  While others wait, the fair shares of the
    whole that these have are kept for them.  Alone, a tenant may fill everything.

    Room is held from before the append until the records have ended, so once nothing is held by a
    closed admission, nothing more will come.

    `hinting` and `shed_below` tell what the marks say at the moment; they are read without a lock.
    """

    def __init__(self, *, name: str, settings: PipelineSettings, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._drained = DrainRate(clock)
        self._shares = Shares()
        self._comebacks = Comebacks()
        self._offers = self._offered = 0
        self._room = WaitingRoom(lock=self._lock, clock=clock)
        self.held_records = 0
        self.held_bytes = 0
        self.refusing = False
        self.hinting = False
        self.shed_below = 0
        self.refused = 0
        self._peak = 0.0
        self._closed = False
        self.configure(settings, name=name)

    def configure(self, settings: PipelineSettings, *, name: str) -> None:
        with self._lock:
            self._settings, self._name = settings, name
            self._marks = Marks.of(settings)
            self._first_mark = self._marks.first
            self._marked = True
            self._update()
            self._let_in()

    def close(self) -> None:
        """Take nothing from now on: `reserve` and `fits` raise Closed."""
        with self._lock:
            self._closed = True
            self._room.let_all_in()

    def reopen(self) -> None:
        with self._lock:
            self._closed = False

    def _update(self) -> None:
        usage = self._share()
        if usage > self._peak:
            self._peak = usage
        if usage < self._first_mark and not self._marked:
            return
        marks = self._marks
        if usage >= marks.refuse:
            self.refusing = True
        elif usage <= marks.admit:
            self.refusing = False
        self.hinting = usage >= marks.hint
        self.shed_below = marks.shed_below(usage)
        self._marked = self.refusing or self.hinting or self.shed_below > 0

    # --- how full it is ----------------------------------------------------------------------

    def usage(self) -> float:
        """What is held over the room that offers may fill: 1 is where refusals begin."""
        return self._share() / self._settings.high_watermark

    def _share(self) -> float:
        """What is held over the capacity, of whichever is scarcer."""
        settings = self._settings
        return max(
            self.held_records / settings.capacity_records,
            self.held_bytes / settings.backlog_max_bytes,
        )

    def take_peak(self) -> float:
        """The fullest it was since this was last asked, as a share of the whole capacity.

        For one reader, who samples: what it has read is forgotten.
        """
        with self._lock:
            peak, self._peak = self._peak, self._share()
            return max(peak, self._peak)

    @property
    def admissible_records(self) -> int:
        """How many records offers may fill it to, before they are refused."""
        return int(self._settings.high_watermark * self._settings.capacity_records)

    def remaining(self) -> tuple[int, float]:
        """How many more records would be admitted, and the seconds until the low mark is reached.

        Where bytes are scarcer, as many as fit if they weigh what those held do.
        """
        with self._lock:
            return self._standing().remaining()

    def figures(self) -> dict[str, float | int | bool]:
        """What the statistics tell of it, as plain values."""
        with self._lock:
            self._shares.expire(self._clock.monotonic())
            return {
                "refusing": self.refusing,
                "held_records": self.held_records,
                "held_bytes": self.held_bytes,
                "admissible_records": self.admissible_records,
                "usage": self.usage(),
                "refused": self.refused,
                "active_tenants": self._shares.active,
                "waiting_tenants": self._shares.waiting,
                "waiting_requests": len(self._room),
                "drain_rate": self._drained.per_second(),
            }

    def drain_rate(self) -> float:
        """Records per second that left while any were held, over at most ten seconds."""
        with self._lock:
            return self._drained.per_second()

    # --- request threads ---------------------------------------------------------------------

    def check(self, tenant: str) -> Saturated | None:
        """Whether a tenant's offer would be refused whatever its size; counts the refusal."""
        # Looked at without the lock: what changes in between is seen by `reserve`.
        if not self.refusing and not self._shares.waiting:
            return None
        return self.await_room(1, 0, tenant=tenant, timeout_s=0.0)

    def lacks(self, records: int, nbytes: int, *, tenant: str) -> bool:
        """Whether there is no room for an offer at the moment."""
        with self._lock:
            return not self._closed and self._why(tenant, records, nbytes) is not None

    def await_room(
        self, records: int, nbytes: int, *, tenant: str, timeout_s: float
    ) -> Saturated | None:
        """Wait until there is room for an offer, at most so long; returns why there is none.

        The room is not reserved.  Counts the refusal.
        """
        with self._lock:
            if self._closed or (why := self._why(tenant, records, nbytes)) is None:
                return None
            if timeout_s > 0:
                # Who waits here is a tenant that waits, for others to leave it its share.
                self._saturated(tenant, records, nbytes, why)
                if self._room.wait(tenant, records, nbytes, timeout_s):
                    return None
                if self._closed or (why := self._why(tenant, records, nbytes)) is None:
                    return None
            return self._refusal(tenant, records, nbytes, why)

    def reserve(self, records: int, nbytes: int, *, tenant: str) -> None:
        """Room for an offer, or Saturated (come back later) or TooLarge (never)."""
        with self._lock:
            if self._closed:
                raise Closed
            settings = self._settings
            # The usual case at once: this is done for every offer.
            if (
                self.refusing
                or self._shares.waiting
                or self.held_records + records > settings.capacity_records
                or self.held_bytes + nbytes > settings.backlog_max_bytes
            ):
                self._judge(tenant, records, nbytes)
            self._hold(records, nbytes, tenant)
            self._offers += 1
            self._offered += records

    def _judge(self, tenant: str, records: int, nbytes: int) -> None:
        """Raise why an offer is refused, if it is."""
        if not self.could_fit(records, nbytes):
            self.refused += 1
            raise self._standing().too_large(records, nbytes)
        if (why := self._why(tenant, records, nbytes)) is not None:
            raise self._refusal(tenant, records, nbytes, why)

    def could_fit(self, records: int, nbytes: int) -> bool:
        """Whether so much would fit if nothing else were held."""
        settings = self._settings
        return records <= settings.capacity_records and nbytes <= settings.backlog_max_bytes

    def fits_without(
        self, waiting_records: int, waiting_bytes: int, records: int, nbytes: int
    ) -> bool:
        """Whether an optional sink would have room if what waits were gone."""
        with self._lock:
            settings = self._settings
            return (
                self.held_records - waiting_records + records <= settings.capacity_records
                and self.held_bytes - waiting_bytes + nbytes <= settings.backlog_max_bytes
            )

    def fits(self, records: int, nbytes: int, *, tenant: str) -> bool:
        """Take room for an optional sink, whatever the watermarks say; False if there is none."""
        with self._lock:
            if self._closed:
                raise Closed
            if self._over(records, nbytes):
                return False
            self._hold(records, nbytes, tenant)
            return True

    def _over(self, records: int, nbytes: int) -> bool:
        """Whether so much more is beyond the capacity."""
        settings = self._settings
        return (
            self.held_records + records > settings.capacity_records
            or self.held_bytes + nbytes > settings.backlog_max_bytes
        )

    def _why(self, tenant: str, records: int, nbytes: int) -> str | None:
        """Why an offer is refused now; None when it is not."""
        if self._over(records, nbytes):
            return FULL
        return self._unfair(tenant, (records, nbytes), (records, nbytes))

    def _unfair(self, tenant: str, own: tuple[int, int], all: tuple[int, int]) -> str | None:
        """Why an offer that fits is refused now; None when it is not.

        `own` are the records and bytes by which the tenant would hold more, `all` those by which
        the sink would.
        """
        shares = self._shares
        if not self.refusing and not shares.waiting:
            return None
        shares.expire(self._clock.monotonic())
        capacity, room = self._settings.capacity_records, self._settings.backlog_max_bytes
        if not shares.within(tenant, *own, capacity, room):
            # What is left beside the shares of those who wait is nobody's: it may be had.
            left = shares.besides_those_who_wait(tenant)
            if (
                self.held_records + all[0] > left * capacity
                or self.held_bytes + all[1] > left * room
            ):
                return BEYOND_SHARE
        low = self._settings.low_watermark
        if self.refusing and not shares.within(tenant, *own, low * capacity, low * room):
            return ABOVE_MARK
        return None

    def _hold(self, records: int, nbytes: int, tenant: str) -> None:
        if not self.held_records:
            self._drained.begin()
        self.held_records += records
        self.held_bytes += nbytes
        self._shares.hold(tenant, records, nbytes)
        self._update()

    # --- what was held -----------------------------------------------------------------------

    def adopt(self, tenants: Mapping[str, int], nbytes: int) -> None:
        """Hold what was taken in by another process, whether there is room or not."""
        records = sum(tenants.values())
        with self._lock:
            for tenant, count in tenants.items():
                self._hold(count, nbytes * count // records, tenant)
            self.held_bytes += nbytes - sum(nbytes * n // records for n in tenants.values())
            self._update()

    def release(self, records: int, nbytes: int, *, tenant: str, drained: bool = True) -> None:
        """Give room back; `drained` tells whether the records left through the sink."""
        self.release_all(((tenant, records, nbytes),), drained=drained)

    def release_all(self, freed: Iterable[tuple[str, int, int]], *, drained: bool = True) -> None:
        """Give back the room of so many records and bytes of each of some tenants."""
        with self._lock:
            drained_at = self._clock.monotonic() if drained else None
            total = 0
            for tenant, records, nbytes in freed:
                total += records
                self.held_bytes -= nbytes
                self._shares.release(tenant, records, nbytes, drained_at=drained_at)
            self.held_records -= total
            if drained:
                self._drained.add(total)
            self._update()
            if len(self._room):
                self._let_in()

    def _let_in(self) -> None:
        self._room.let_in(self._admits)

    def _admits(self, ticket: Ticket, promised: Promised) -> bool:
        # What others were promised leaves less room, and their shares are no affair of this one's.
        own_records, own_bytes = promised.to(ticket.tenant)
        own = own_records + ticket.records, own_bytes + ticket.nbytes
        all = promised.records + ticket.records, promised.nbytes + ticket.nbytes
        return not self._over(*all) and self._unfair(ticket.tenant, own, all) is None

    # --- refusals ----------------------------------------------------------------------------

    def _standing(self) -> Standing:
        return Standing(
            name=self._name,
            settings=self._settings,
            records=self.held_records,
            nbytes=self.held_bytes,
            refusing=self.refusing,
            rate=self._drained.per_second(),
            age_s=self._drained.age_s(),
        )

    def _refusal(self, tenant: str, records: int, nbytes: int, why: str) -> Saturated:
        """An offer is turned away: it comes back behind those that were turned away before it."""
        self.refused += 1
        return self._saturated(tenant, records, nbytes, why, turned_away=True)

    def _saturated(
        self, tenant: str, records: int, nbytes: int, why: str, *, turned_away: bool = False
    ) -> Saturated:
        """Why there is no room and when there will be; the tenant waits from now on."""
        now, shares, standing = self._clock.monotonic(), self._shares, self._standing()
        if why == BEYOND_SHARE:
            # It waits for its own records to leave, not behind others.
            refused = standing.beyond_share(shares, tenant, records, nbytes, now=now)
        else:
            refused = standing.no_room(records, nbytes)
            if turned_away:
                # Most are turned away before anybody knows how many records they have.
                usual = self._offered // self._offers if self._offers else 1
                seconds, turn = self._comebacks.tell(
                    max(records, usual), after_s=refused.retry_after_s, rate=standing.rate, now=now
                )
                refused.retry_after_s = min(seconds, RETRY_AFTER_MAX_S)
                refused.taken_back = partial(self._take_back, turn)
        shares.wait(tenant, now, refused.retry_after_s)
        return refused

    def _take_back(self, turn: Turn) -> None:
        with self._lock:
            self._comebacks.take_back(turn)
