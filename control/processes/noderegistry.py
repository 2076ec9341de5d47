"""Who holds which record-id number, by the database's account: leases as rows of `control.IdNode`.

Used by the thread that takes a number and by the heart's, which renews it. Several processes
may ask at once: a row is made or changed only under the condition that it still is as it was
read.
"""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Protocol

from django.db import IntegrityError, transaction

from control.processes.models import NODE_NUMBERS, IdNode

# The lower half is leased by the database, the upper half drawn without one.
LEASED_NUMBERS = NODE_NUMBERS // 2
ATTEMPTS = 20


class Registry(Protocol):
    """Who holds which number, by the database's account."""

    def confirm(self, *, number: int, holder: str, until: datetime) -> bool: ...

    def lease(
        self, *, holder: str, now: datetime, until: datetime
    ) -> tuple[int, datetime] | None: ...


class DatabaseRegistry:
    """Leases as rows, for numbers below `numbers`. Raises `django.db.Error` without a database."""

    def __init__(self, *, numbers: int = LEASED_NUMBERS) -> None:
        self._numbers = numbers

    def confirm(self, *, number: int, holder: str, until: datetime) -> bool:
        """Extend the holder's lease; False when the number is somebody else's by now."""
        if IdNode.objects.filter(number=number, holder=holder).update(leased_until=until):
            return True
        try:
            with transaction.atomic(using=IdNode.objects.db):
                IdNode.objects.create(number=number, holder=holder, leased_until=until)
        except IntegrityError:
            return False
        return True

    def lease(self, *, holder: str, now: datetime, until: datetime) -> tuple[int, datetime] | None:
        """A number nobody holds, and the time from which it is ours; None when all are held."""
        for _ in range(ATTEMPTS):
            held = dict(IdNode.objects.values_list("number", "leased_until"))
            never_held = [number for number in range(self._numbers) if number not in held]
            if never_held:
                number = secrets.choice(never_held)
                if self.confirm(number=number, holder=holder, until=until):
                    return number, now
                continue
            number, ended = min(
                ((n, t) for n, t in held.items() if n < self._numbers), key=lambda item: item[1]
            )
            if ended >= now:
                return None
            if IdNode.objects.filter(number=number, leased_until=ended).update(
                holder=holder, leased_until=until
            ):
                return number, ended
        return None
