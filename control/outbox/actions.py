"""What an operator does to messages: try again, and cancel.  Runs in request threads."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from control.outbox import nudge
from control.outbox.enqueue import MAX_AGE_S
from control.outbox.models import CANCELLED, FAILED, WAITING, OutboxMessage


def retry(ids: Iterable[int], now: datetime, *, max_age_s: float = MAX_AGE_S) -> int:
    """Have messages that failed, were cancelled or wait be tried now; returns how many."""
    count = OutboxMessage.objects.filter(
        pk__in=list(ids), state__in=(FAILED, CANCELLED, WAITING)
    ).update(
        state=WAITING,
        next_at=now,
        expires_at=now + timedelta(seconds=max_age_s),
        finished_at=None,
        lease_until=None,
        doubted_at=None,
    )
    nudge.nudge()
    return count


def cancel(ids: Iterable[int], now: datetime) -> int:
    """End messages that wait, and put away those that failed; returns how many.

    One that is being sent cannot be called back.
    """
    return OutboxMessage.objects.filter(pk__in=list(ids), state__in=(WAITING, FAILED)).update(
        state=CANCELLED, finished_at=now
    )
