"""Letters into the control database: in bulk, each once, counted in the same transaction.

Runs on the engine's worker threads and on the importer's.  Every transaction is one of its own:
inside somebody's it would not be kept when `keep` returns.
"""

from __future__ import annotations

import time
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
        known = _known(sink, [letter.record_id for letter in letters])
        fresh = [row_of(letter, now=now) for letter in letters if letter.record_id not in known]
        _insert(fresh)
        tally.entered(sink, len(fresh))
        for letter in letters:
            if letter.origin and letter.record_id in known:
                _came_back(letter, now)
    return len(fresh)


def _known(sink: str, record_ids: list[int]) -> set[int]:
    table, quote = DeadLetter._meta.db_table, connection.ops.quote_name
    marks = ", ".join(["%s"] * len(record_ids))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT record_id FROM {quote(table)} "  # noqa: S608
            f"WHERE sink = %s AND record_id IN ({marks})",
            [sink, *record_ids],
        )
        return {row[0] for row in cursor.fetchall()}


def _insert(rows: list[DeadLetter]) -> None:
    """What `bulk_create` does, which makes a statement of as many expressions as there are values.

    A batch has a letter or two, and its worker has others to write meanwhile.
    """
    if not rows:
        return
    fields = [field for field in DeadLetter._meta.concrete_fields if not field.primary_key]
    quote = connection.ops.quote_name
    names = ", ".join(quote(str(field.column)) for field in fields)
    marks = ", ".join(["%s"] * len(fields))
    values = [
        [field.get_db_prep_save(getattr(row, field.attname), connection) for field in fields]
        for row in rows
    ]
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {quote(DeadLetter._meta.db_table)} ({names}) VALUES ({marks})",  # noqa: S608
            values,
        )


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
def own_connection(*, reuse_s: float = 0.0) -> Iterator[None]:
    """Leave no connection behind on a thread that seldom needs one.

    With `reuse_s` what follows so soon finds the last one open, where that takes nothing from
    others: a file, not a server's connection or a place in a pool.
    """
    if connection.in_atomic_block:
        yield
        return
    connection.close_if_unusable_or_obsolete()
    left_open = False
    is_new = connection.connection is None
    try:
        yield
        left_open = reuse_s > 0 and connection.vendor == "sqlite"
        if left_open and is_new:
            connection.close_at = time.monotonic() + reuse_s
    finally:
        if not left_open and not connection.in_atomic_block:
            connection.close()
