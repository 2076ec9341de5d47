"""What time does to letters: those that nobody decides about expire, those that ended are deleted.

Run by the heart of every process and by `manage.py prune`; twice is harmless.  The tally goes on
counting what is deleted, and the notes of decisions stay.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.db import transaction

from sinks.deadletters import decisions, tally
from sinks.deadletters.metrics import metrics
from sinks.deadletters.models import ENDED, EXPIRED, WAITING, DeadLetter
from sinks.deadletters.selection import Selection

logger = logging.getLogger(__name__)

INTERVAL_S = 3_600.0
CHUNK_LETTERS = 500
# Rows of letters that have ended are kept so long at most, to be looked up.
ENDED_KEPT_DAYS = 7


def forget_old(now: datetime, *, days: int, chunks: int = 20_000) -> dict[str, int]:
    """Expire and delete what is past its time, so many chunks at most; how many of each."""
    expired = _expire(now, days, chunks)
    deleted = _delete(_ended_before(now, days), chunks)
    return {"dead_letters_expired": expired, "dead_letters": deleted}


def due(now: datetime, *, days: int) -> dict[str, int]:
    """What `forget_old` would do now."""
    letters = DeadLetter.objects.order_by()
    waiting = letters.filter(state=WAITING, changed_at__lt=now - timedelta(days=days))
    ended = letters.filter(state__in=ENDED, changed_at__lt=_ended_before(now, days))
    return {"dead_letters_expired": waiting.count(), "dead_letters": ended.count()}


def _ended_before(now: datetime, days: int) -> datetime:
    return now - timedelta(days=min(days, ENDED_KEPT_DAYS))


def _expire(now: datetime, days: int, chunks: int) -> int:
    before = now - timedelta(days=days)
    total = 0
    for _ in range(chunks):
        old = DeadLetter.objects.filter(state=WAITING, changed_at__lt=before)
        first = old.order_by("changed_at").first()
        if first is None:
            break
        with transaction.atomic():
            tally.lock(first.sink, first.sink_name)
            ids = list(old.filter(sink=first.sink).values_list("pk", flat=True)[:CHUNK_LETTERS])
            moved = DeadLetter.objects.filter(pk__in=ids, state=WAITING).update(
                state=EXPIRED, changed_at=now
            )
            tally.moved(first.sink, WAITING, EXPIRED, moved)
            decisions.note(
                "expire",
                who="retention",
                selection=Selection(sink=first.sink, until=before),
                count=moved,
                reason=f"nobody decided about them for {days} days",
                now=now,
            )
        metrics().expired.labels(first.sink_name).inc(moved)
        logger.warning("dead letters expired", extra={"sink": first.sink_name, "letters": moved})
        total += moved
    return total


def _delete(before: datetime, chunks: int) -> int:
    total = 0
    for _ in range(chunks):
        old = DeadLetter.objects.filter(state__in=ENDED, changed_at__lt=before)
        first = old.order_by("state", "changed_at").values("sink", "state").first()
        if first is None:
            break
        with transaction.atomic():
            tally.lock(first["sink"])
            ids = list(old.filter(**first).values_list("pk", flat=True)[:CHUNK_LETTERS])
            gone, _ = DeadLetter.objects.filter(pk__in=ids, state=first["state"]).delete()
            tally.forgotten(first["sink"], first["state"], gone)
        total += gone
    return total
