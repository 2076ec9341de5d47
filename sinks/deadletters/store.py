"""Letters into the control database: in bulk, each once, counted in the same transaction.

Runs on the engine's worker threads and on the importer's.  Every transaction is one of its own:
inside somebody's it would not be kept when `keep` returns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from django.db import connection, transaction
from django.db.models import F

from pipeline import deadletter
from sinks.deadletters import tally
from sinks.deadletters.letters import by_sink, row_of
from sinks.deadletters.models import REDRIVING, WAITING, DeadLetter

CHUNK_LETTERS = 500


def keep(letters: Sequence[deadletter.DeadLetter], *, now: datetime | None = None) -> int:
    """Keep the letters for good; returns how many are new.

    A letter that is known stays what it has become, unless it comes back from a redrive that the
    row does not know of: then it waits again, with the new error.
    """
    at = now or datetime.now(UTC)
    return sum(
        _keep_chunk(sink, group[start : start + CHUNK_LETTERS], at)
        for sink, group in by_sink(letters).items()
        for start in range(0, len(group), CHUNK_LETTERS)
    )


def _keep_chunk(sink: str, letters: list[deadletter.DeadLetter], now: datetime) -> int:
    with transaction.atomic(durable=True):
        tally.lock(sink, letters[-1].sink_name)
        ids = [letter.record_id for letter in letters]
        known = set(
            DeadLetter.objects.filter(sink=sink, record_id__in=ids).values_list(
                "record_id", flat=True
            )
        )
        fresh = [row_of(letter, now=now) for letter in letters if letter.record_id not in known]
        DeadLetter.objects.bulk_create(fresh)
        tally.entered(sink, len(fresh))
        for letter in letters:
            if letter.origin and letter.record_id in known:
                _came_back(letter, now)
    return len(fresh)


def _came_back(letter: deadletter.DeadLetter, now: datetime) -> None:
    again = row_of(letter, now=now)
    rows = DeadLetter.objects.filter(sink=letter.sink, record_id=letter.record_id)
    row = rows.only("state", "origin").get()
    if row.origin == again.origin or row.state == REDRIVING:
        return  # kept already; or its redrive's own result will say it
    rows.update(
        state=WAITING,
        reason=again.reason,
        error=again.error,
        pattern=again.pattern,
        attempts=F("attempts") + max(1, letter.attempts),
        redrives=F("redrives") + 1,
        last_tried_at=again.last_tried_at,
        batch_id=again.batch_id,
        origin=again.origin,
        changed_at=now,
    )
    if row.state != WAITING:
        tally.moved(letter.sink, row.state, WAITING, 1)


@contextmanager
def own_connection() -> Iterator[None]:
    """Leave no connection behind on a thread that seldom needs one."""
    try:
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
        yield
    finally:
        if not connection.in_atomic_block:
            connection.close()
