"""Admission: room in one pipeline, reserved before anything is appended.

Request threads reserve and may wait for room, workers release.  `_lock` guards what is held, by
whom, who waits, and what follows from it; it is a leaf: nothing else is taken while it is held.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from pipeline.errors import Saturated, TooLarge
from pipeline.intake.drainrate import DrainRate
from pipeline.intake.marks import Marks
from pipeline.intake.shares import Shares
from pipeline.intake.waitingroom import Ticket, WaitingRoom
from pipeline.runtime.clock import Clock
from pipeline.settings import PipelineSettings

RETRY_AFTER_MIN_S, RETRY_AFTER_MAX_S = 1.0, 60.0


class Closed(Exception):
    """This pipeline takes nothing any more: the offer has to be routed again."""


# Why an offer is refused.
FULL, BEYOND_SHARE, ABOVE_MARK = "full", "beyond_share", "above_mark"


class Admission:
    """How much one sink's records may occupy, by count and by encoded bytes, and by tenant.

    Above the high watermark offers are refused until what is held has fallen to the low one, but
    for those of tenants that hold less than their fair share of the room below the low one: a
    tenant that floods does not shut the others out.  While another tenant waits, none gets beyond
    its fair share of the whole.  Alone, a tenant may fill everything.

    Room is held from before the append until the records have ended, so once nothing is held by a
    closed admission, nothing more will come.

    `hinting` and `shed_below` tell what the marks say at the moment; they are read without a lock.
    """

    def __init__(self, *, name: str, settings: PipelineSettings, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._drained = DrainRate(clock)
        self._shares = Shares()
        self._room = WaitingRoom(lock=self._lock, clock=clock)
        self.held_records = 0
        self.held_bytes = 0
        self.refusing = False
        self.hinting = False
        self.shed_below = 0
        self.refused = 0
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
        settings = self._settings
        usage = max(
            self.held_records / settings.capacity_records,
            self.held_bytes / settings.backlog_max_bytes,
        )
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
        settings = self._settings
        share = max(
            self.held_records / settings.capacity_records,
            self.held_bytes / settings.backlog_max_bytes,
        )
        return share / settings.high_watermark

    @property
    def admissible_records(self) -> int:
        """How many records offers may fill it to, before they are refused."""
        return int(self._settings.high_watermark * self._settings.capacity_records)

    def remaining(self) -> tuple[int, float]:
        """How many more records would be admitted, and the seconds until the low mark is reached.

        Where bytes are scarcer, as many as fit if they weigh what those held do.
        """
        with self._lock:
            settings = self._settings
            records = settings.high_watermark * settings.capacity_records - self.held_records
            nbytes = settings.high_watermark * settings.backlog_max_bytes - self.held_bytes
            left = max(0, int(min(records, nbytes / self._weight())))
            return (0 if self.refusing else left), self._seconds(self._excess())

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
            self.refused += 1
            return self._saturated(tenant, records, nbytes, why)

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

    def _judge(self, tenant: str, records: int, nbytes: int) -> None:
        """Raise why an offer is refused, if it is."""
        if not self.could_fit(records, nbytes):
            self.refused += 1
            raise self._too_large(records, nbytes)
        if (why := self._why(tenant, records, nbytes)) is not None:
            self.refused += 1
            raise self._saturated(tenant, records, nbytes, why)

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
        settings = self._settings
        return (
            self.held_records + records > settings.capacity_records
            or self.held_bytes + nbytes > settings.backlog_max_bytes
        )

    def _why(self, tenant: str, records: int, nbytes: int) -> str | None:
        """Why an offer is refused now; None when it is not."""
        if self._over(records, nbytes):
            return FULL
        shares = self._shares
        if not self.refusing and not shares.waiting:
            return None
        shares.expire(self._clock.monotonic())
        settings = self._settings
        capacity, room = settings.capacity_records, settings.backlog_max_bytes
        if shares.others_wait(tenant) and not shares.within(
            tenant, records, nbytes, capacity, room
        ):
            return BEYOND_SHARE
        low = settings.low_watermark
        if self.refusing and not shares.within(tenant, records, nbytes, low * capacity, low * room):
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

    def _admits(self, ticket: Ticket, records: int, nbytes: int) -> bool:
        wanted = ticket.records + records, ticket.nbytes + nbytes
        return self._why(ticket.tenant, *wanted) is None

    # --- refusals ----------------------------------------------------------------------------

    def _too_large(self, records: int, nbytes: int) -> TooLarge:
        settings = self._settings
        return TooLarge(
            f"{records} records of {nbytes} bytes can never fit into sink {self._name!r}, "
            f"which holds {settings.capacity_records} records and "
            f"{settings.backlog_max_bytes} bytes: send less in one request",
            limit=f"capacity_records={settings.capacity_records}, "
            f"backlog_max_bytes={settings.backlog_max_bytes}",
        )

    def _saturated(self, tenant: str, records: int, nbytes: int, why: str) -> Saturated:
        """The refusal of an offer; its tenant waits from now on."""
        now = self._clock.monotonic()
        if why == BEYOND_SHARE:
            seconds, said = self._until_share(tenant, records, nbytes, now)
        else:
            seconds, said = self._until_room(records, nbytes), self._state()
        self._shares.wait(tenant, now, seconds)
        return Saturated(said, retry_after_s=seconds)

    def _state(self) -> str:
        settings = self._settings
        return (
            f"sink {self._name!r} holds {self.held_records} records of "
            f"{settings.capacity_records} and {self.held_bytes} bytes of "
            f"{settings.backlog_max_bytes}, and drains {self._drained.per_second():.0f} records "
            "a second"
        )

    def _until_room(self, records: int, nbytes: int) -> float:
        """Until what must leave has left: down to the low mark, or until this much fits."""
        settings = self._settings
        over = max(
            self.held_records + records - settings.capacity_records,
            (self.held_bytes + nbytes - settings.backlog_max_bytes) / self._weight(),
        )
        return self._seconds(max(over, self._excess() if self.refusing else 0.0))

    def _until_share(self, tenant: str, records: int, nbytes: int, now: float) -> tuple[float, str]:
        """Until so much of a tenant's own has left that it is within its fair share."""
        settings, shares = self._settings, self._shares
        one = shares.of(tenant)
        active = max(shares.active, 1)
        share = settings.capacity_records // active
        excess = max(
            one.records + records - share,
            (one.nbytes + nbytes - settings.backlog_max_bytes / active) / self._weight(),
        )
        others = shares.waiting - (one.waits_until != 0.0)
        return (
            self._seconds(excess, rate=one.drain_rate(now)),
            f"tenant {tenant!r} holds {one.records} records in sink {self._name!r}, of which its "
            f"fair share is {share} while others wait ({others} of {active} active tenants)",
        )

    def _weight(self) -> float:
        """The bytes of a record, as those that are held have it."""
        return max(self.held_bytes / self.held_records, 1.0) if self.held_records else 1.0

    def _excess(self) -> float:
        """The records that must leave before the low mark is reached, by the scarcer capacity."""
        settings = self._settings
        records = self.held_records - settings.low_watermark * settings.capacity_records
        nbytes = self.held_bytes - settings.low_watermark * settings.backlog_max_bytes
        return max(records, nbytes / self._weight(), 0.0)

    def _seconds(self, excess: float, *, rate: float | None = None) -> float:
        """How long so many records take to leave."""
        if rate is None:
            rate = self._drained.per_second()
        # While nothing has left yet nobody knows the rate: come back after as long again.
        seconds = excess / rate if rate > 0 else self._drained.age_s()
        return min(max(seconds, RETRY_AFTER_MIN_S), RETRY_AFTER_MAX_S)
