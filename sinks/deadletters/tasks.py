"""A redrive as rows: who carries it out, which letters its next chunk has, what became of them.

The membership and number of a chunk are kept before it is sent: sent again, by whomever, it is the
same batch.  Every write of an owner is bound to its attempt, under the task's row lock, so that one
that was taken for dead changes nothing.  Locks are taken in the order task, tally, letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q, QuerySet

from pipeline import deadletter
from sinks.deadletters import decisions, tally
from sinks.deadletters.letters import letter_of, moment, pattern_of
from sinks.deadletters.models import (
    ERROR_LENGTH,
    REDRIVEN,
    REDRIVING,
    WAITING,
    DeadLetter,
    RedriveTask,
)
from sinks.deadletters.selection import Selection

LEASE = timedelta(seconds=15)
CHUNK_LETTERS = 1_000
CHUNK_BYTES = 8 * 1024 * 1024
_AT_ONCE = 500


class Fenced(Exception):
    """Somebody else carries the task out by now, or nobody is to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to carry a task out, until somebody else has a later one."""

    task_id: UUID
    attempt: int
    sink: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    number: int
    letters: list[deadletter.DeadLetter]


def claim(owner: str, *, now: datetime, but: Sequence[UUID] = ()) -> Claim | None:
    """The oldest task that nobody carries out, or whose owner has fallen silent."""
    free = Q(owner="") | Q(lease_until__lt=now)
    waiting = RedriveTask.objects.filter(free, state__in=RedriveTask.OPEN).exclude(pk__in=but)
    for task in waiting.order_by("created_at")[:10]:
        taken = RedriveTask.objects.filter(
            free, pk=task.pk, attempt=task.attempt, state__in=RedriveTask.OPEN
        ).update(
            owner=owner,
            attempt=F("attempt") + 1,
            lease_until=now + LEASE,
            state=RedriveTask.RUNNING,
            started_at=task.started_at or now,
        )
        if taken:
            return Claim(
                task_id=task.pk, attempt=task.attempt + 1, sink=task.sink, origin=task.origin
            )
    return None


def renew(held: Claim, *, now: datetime, note: str | None = None) -> None:
    """Go on holding the task.  Raises Fenced."""
    changes: dict[str, Any] = {"lease_until": now + LEASE}
    if note is not None:
        changes["note"] = note[:1000]
    if not _own(held).update(**changes):
        raise Fenced


def release(held: Claim) -> None:
    """Let another process go on at once; its open chunk stays as it is."""
    _own(held).update(owner="", lease_until=None)


def next_chunk(held: Claim, *, now: datetime) -> Chunk | None:
    """The chunk to send: one that was begun, or else the next; None when the task has ended.

    Raises Fenced.
    """
    with transaction.atomic():
        task = _locked(held, now)
        number = _begun(task)
        if number is not None:
            rows = _chunk_rows(task, number)
            return Chunk(number=number, letters=[letter_of(row) for row in rows])
        if task.cancelling:
            _end(task, RedriveTask.CANCELLED, now)
            return None
        tally.lock(task.sink, task.sink_name)
        rows = _form_chunk(task, now)
        if not rows:
            _end(task, RedriveTask.DONE, now)
            return None
    return Chunk(number=task.chunks, letters=[letter_of(row) for row in rows])


def settle(
    held: Claim,
    chunk: Chunk,
    *,
    stored: int,
    already_stored: int,
    refused: Sequence[deadletter.DeadLetter],
    now: datetime,
) -> None:
    """Write down what became of a chunk: stored, or waiting again with the new error.

    Raises Fenced; called twice, it does nothing the second time.
    """
    back = {letter.record_id: letter for letter in refused}
    with transaction.atomic():
        task = _locked(held, now)
        tally.lock(task.sink, task.sink_name)
        rows = _chunk_rows(task, chunk.number)
        if not rows:
            return
        gone = [row.pk for row in rows if row.record_id not in back]
        for start in range(0, len(gone), _AT_ONCE):
            DeadLetter.objects.filter(pk__in=gone[start : start + _AT_ONCE]).update(
                state=REDRIVEN, redrives=F("redrives") + 1, changed_at=now
            )
        returned = [row for row in rows if row.record_id in back]
        for row in returned:
            _return(row, back[row.record_id], f"{held.origin}-{chunk.number}", now)
        DeadLetter.objects.bulk_update(returned, _RETURNED, batch_size=100)
        tally.moved(task.sink, REDRIVING, REDRIVEN, len(gone))
        tally.moved(task.sink, REDRIVING, WAITING, len(returned))
        # An engine's count of what was there already decides nothing but the figure shown.
        known = min(already_stored, len(gone))
        task.already_stored += known
        task.stored += len(gone) - known
        task.refused += len(returned)
        task.note = ""
        task.save(update_fields=["already_stored", "stored", "refused", "note"])


def split(held: Claim, chunk: Chunk, *, now: datetime) -> None:
    """Make two chunks, with numbers of their own, of one that the sink refused as a whole.

    Kept before either is sent, as every chunk is.  Raises Fenced.
    """
    with transaction.atomic():
        task = _locked(held, now)
        ids = [row.pk for row in _chunk_rows(task, chunk.number)]
        for half in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
            if not half:
                continue
            task.chunks += 1
            for start in range(0, len(half), _AT_ONCE):
                DeadLetter.objects.filter(pk__in=half[start : start + _AT_ONCE]).update(
                    chunk=task.chunks
                )
        task.save(update_fields=["chunks"])


def give_back(held: Claim, *, now: datetime, why: str) -> None:
    """End the task: its sink is gone for good, so what was on its way waits again."""
    with transaction.atomic():
        task = _locked(held, now)
        tally.lock(task.sink, task.sink_name)
        moved = DeadLetter.objects.filter(task=task, state=REDRIVING).update(
            state=WAITING, task=None, chunk=None, changed_at=now
        )
        tally.moved(task.sink, REDRIVING, WAITING, moved)
        task.note = why[:1000]
        _end(task, RedriveTask.FAILED, now)


def cancel(task_id: UUID, *, who: str, now: datetime) -> str:
    """Send no further chunk; returns what happens.  Raises decisions.Refused."""
    with transaction.atomic():
        task = RedriveTask.objects.select_for_update().get(pk=task_id)
        if not task.is_open:
            raise decisions.Refused(f"This redrive is {task.state} already.")
        begun = DeadLetter.objects.filter(task=task, state=REDRIVING).exists()
        task.cancelling = True
        task.save(update_fields=["cancelling"])
        if not begun:
            # Whoever carries it out finds its attempt gone.
            task.attempt += 1
            _end(task, RedriveTask.CANCELLED, now)
        decisions.note("cancel", who=who, now=now, task=task, sink=task.sink)
    if begun:
        return "It ends when the chunk that is on its way has come to an end."
    return "It is cancelled; the letters that were not sent wait."


def resume(task_id: UUID, *, who: str, now: datetime) -> None:
    """Go on with a task that was cancelled or has failed.  Raises decisions.Refused."""
    with transaction.atomic():
        task = RedriveTask.objects.select_for_update().get(pk=task_id)
        if task.is_open and not task.cancelling:
            raise decisions.Refused("This redrive is under way.")
        if task.state == RedriveTask.DONE:
            raise decisions.Refused("This redrive is done.")
        task.cancelling = False
        if not task.is_open:
            task.state, task.ended_at, task.note = RedriveTask.PREPARED, None, ""
        task.save(update_fields=["cancelling", "state", "ended_at", "note"])
        decisions.note("resume", who=who, now=now, task=task, sink=task.sink)


def _own(held: Claim) -> QuerySet[RedriveTask]:
    return RedriveTask.objects.filter(
        pk=held.task_id, attempt=held.attempt, state=RedriveTask.RUNNING
    )


def _locked(held: Claim, now: datetime) -> RedriveTask:
    task = RedriveTask.objects.select_for_update().filter(pk=held.task_id).first()
    if task is None or task.attempt != held.attempt or task.state != RedriveTask.RUNNING:
        raise Fenced
    task.lease_until = now + LEASE
    task.save(update_fields=["lease_until"])
    return task


def _begun(task: RedriveTask) -> int | None:
    """The number of the first chunk that was formed and has not come to an end."""
    rows = DeadLetter.objects.filter(task=task, state=REDRIVING).order_by("chunk")
    return rows.values_list("chunk", flat=True).first()


def _chunk_rows(task: RedriveTask, number: int) -> list[DeadLetter]:
    rows = DeadLetter.objects.filter(task=task, chunk=number, state=REDRIVING)
    return list(rows.order_by("pk"))


def _form_chunk(task: RedriveTask, now: datetime) -> list[DeadLetter]:
    selection = Selection.from_json(task.selection)
    ahead = selection.waiting().filter(pk__gt=task.cursor, pk__lte=task.up_to)
    ids: list[int] = []
    nbytes = 0
    for pk, size in ahead.values_list("pk", "nbytes")[:CHUNK_LETTERS]:
        nbytes += size
        if ids and nbytes > CHUNK_BYTES:
            break
        ids.append(pk)
    if not ids:
        return []
    task.chunks += 1
    task.cursor = ids[-1]
    moved = 0
    for start in range(0, len(ids), _AT_ONCE):
        moved += DeadLetter.objects.filter(
            pk__in=ids[start : start + _AT_ONCE], state=WAITING
        ).update(state=REDRIVING, task=task, chunk=task.chunks, changed_at=now)
    tally.moved(task.sink, WAITING, REDRIVING, moved)
    task.claimed += moved
    task.save(update_fields=["chunks", "cursor", "claimed"])
    return _chunk_rows(task, task.chunks)


_RETURNED = [
    "state", "reason", "error", "pattern", "attempts", "redrives", "last_tried_at", "batch_id",
    "origin", "changed_at", "task", "chunk",
]  # fmt: skip


def _return(row: DeadLetter, letter: deadletter.DeadLetter, batch: str, now: datetime) -> None:
    row.state, row.task, row.chunk = WAITING, None, None
    row.reason = letter.reason[:32]
    row.error = letter.error.replace("\0", "\\u0000").encode("utf-8", "backslashreplace").decode()
    row.error = row.error[:ERROR_LENGTH]
    row.pattern = pattern_of(row.error)
    row.attempts += max(1, letter.attempts)
    row.redrives += 1
    row.last_tried_at = moment(letter.last_tried_us)
    row.batch_id, row.origin = letter.batch_id[:255], (letter.origin or batch)[:255]
    row.changed_at = now


def _end(task: RedriveTask, state: str, now: datetime) -> None:
    task.state, task.ended_at = state, now
    task.owner, task.lease_until, task.cancelling = "", None, False
    task.save(
        update_fields=[
            "state", "ended_at", "owner", "lease_until", "cancelling", "attempt", "note",
        ]
    )  # fmt: skip
