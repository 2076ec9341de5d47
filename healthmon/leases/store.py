"""The leases in the control database: rows changed only under a condition, by its own clock.

Every call is a statement or one short transaction, used on the keeper's thread; no state here but
the configuration.  Errors are those of `django.db`: a call that raised may have been done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connections, transaction
from django.db.models import BooleanField, Case, F, Q, Value, When
from django.db.models.functions import Now

from healthmon.leases.models import Checker, ProbeSlot
from healthmon.targets.models import SLOTS

# A checker that died is listed for so long.
REMEMBERED = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A slot as the database has it; `free` when anybody may take it."""

    slot: int
    holder: str
    epoch: int
    free: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Who lives, sorted by id, and who holds what; the caller's lease is renewed in it."""

    living: list[str]
    slots: list[Slot]

    def epochs_of(self, checker: str) -> dict[int, int]:
        return {one.slot: one.epoch for one in self.slots if one.holder == checker}


class LeaseStore:
    """`now` replaces the database's clock in tests."""

    def __init__(self, *, lease_s: float, now: Callable[[], datetime] | None = None) -> None:
        self._lease = timedelta(seconds=lease_s)
        self._clock = now

    def prepare(self) -> None:
        """Make the rows of the slots where they are missing."""
        if ProbeSlot.objects.count() < SLOTS:
            rows = [ProbeSlot(slot=slot) for slot in range(SLOTS)]
            ProbeSlot.objects.bulk_create(rows, ignore_conflicts=True)

    def renew(self, checker: str, *, host: str = "", pid: int = 0, log_id: str = "") -> Picture:
        """Go on holding what is still this checker's, be it past its time; see the others.

        What another took meanwhile has that one's name in it, so that its lease is not touched.
        """
        now = self._now()
        until = now + self._lease
        living = Checker.objects.filter(pk=checker).update(
            expires_at=until, host=host, pid=pid, log_id=log_id
        )
        if not living:
            self._join(checker, until, host=host, pid=pid, log_id=log_id)
        ProbeSlot.objects.filter(holder=checker).update(expires_at=until)
        Checker.objects.filter(expires_at__lt=now - REMEMBERED).delete()
        others = Checker.objects.filter(expires_at__gt=now).values_list("pk", flat=True)
        return Picture(living=sorted({checker, *others}), slots=self._slots(now))

    def take(self, checker: str, slots: Collection[int]) -> dict[int, int]:
        """Become the holder of those that are free; returns their new epochs."""
        now = self._now()
        with transaction.atomic(using="default"):
            self._bound_silence()
            # Rows that another checker is taking at this moment are left to it.
            free = list(
                ProbeSlot.objects.select_for_update(skip_locked=True)
                .filter(_free(now), slot__in=slots)
                .order_by("slot")
                .values_list("slot", flat=True)
            )
            # The condition again: the rows are ours to change only if they still are free.
            ProbeSlot.objects.filter(_free(now), slot__in=free).update(
                holder=checker,
                epoch=F("epoch") + 1,
                taken_at=now,
                expires_at=now + self._lease,
            )
            taken = ProbeSlot.objects.filter(slot__in=free, holder=checker)
            return dict(taken.values_list("slot", "epoch"))

    def release(self, checker: str, slots: Collection[int]) -> None:
        """Let others take these now."""
        mine = ProbeSlot.objects.filter(holder=checker, slot__in=slots)
        mine.update(holder="", expires_at=self._now())

    def leave(self, checker: str) -> None:
        """Let go of everything, and be no longer counted."""
        now = self._now()
        Checker.objects.filter(pk=checker).delete()
        ProbeSlot.objects.filter(holder=checker).update(holder="", expires_at=now)

    def _bound_silence(self) -> None:
        """Should this side vanish unheard in the midst of it, others may lock the rows soon."""
        connection = connections["default"]
        if connection.vendor == "postgresql":
            idle_ms = max(1_000, round(self._lease / timedelta(milliseconds=2)))
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL idle_in_transaction_session_timeout = {idle_ms}")

    def _join(self, checker: str, until: Any, *, host: str, pid: int, log_id: str) -> None:
        Checker.objects.create(id=checker, host=host, pid=pid, log_id=log_id, expires_at=until)

    def _slots(self, now: Any) -> list[Slot]:
        rows = ProbeSlot.objects.annotate(
            free=Case(
                When(_free(now), then=Value(True)),
                default=Value(False),
                output_field=BooleanField(),
            )
        )
        return [
            Slot(slot=slot, holder=holder, epoch=epoch, free=bool(free))
            for slot, holder, epoch, free in rows.order_by("slot").values_list(
                "slot", "holder", "epoch", "free"
            )
        ]

    def _now(self) -> Any:
        """The time, as an expression of the database's own clock."""
        return Now() if self._clock is None else Value(self._clock())


def _free(now: Any) -> Q:
    return Q(holder="") | Q(expires_at__isnull=True) | Q(expires_at__lte=now)
