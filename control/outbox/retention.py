"""What the outbox forgets: messages that have ended, with their attempts.

Run by the heart of every process that delivers; twice is harmless.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from control.outbox.models import CANCELLED, FAILED, SENT, OutboxMessage

INTERVAL_S = 3600.0
SENT_KEPT = timedelta(days=30)
FAILED_KEPT = timedelta(days=90)
CHUNK = 500
MOST_CHUNKS = 20


def forget_old(now: datetime) -> int:
    """Delete what is past its time, a bounded number a run; returns how many messages."""
    count = 0
    for states, kept in (((SENT, CANCELLED), SENT_KEPT), ((FAILED,), FAILED_KEPT)):
        old = OutboxMessage.objects.filter(state__in=states, finished_at__lt=now - kept)
        for _ in range(MOST_CHUNKS):
            ids = list(old.order_by().values_list("pk", flat=True)[:CHUNK])
            OutboxMessage.objects.filter(pk__in=ids).delete()
            count += len(ids)
            if len(ids) < CHUNK:
                break
    return count
