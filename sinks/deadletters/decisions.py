"""What an operator decides about letters: send them again, throw them away, correct one.

Each decision is noted with who made it, in the transaction that carries it out.  Called by request
threads of the admin and by commands; raises `Refused` with what to say when it cannot be.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from django.conf import settings
from django.db import transaction

from control.admin.deadline import QueryDeadlineExceeded, query_deadline
from control.ports.payloads import UnreadablePayload, payload_reader
from sinks.deadletters import tally
from sinks.deadletters.letters import as_sent, keep_as_sent, microseconds, take_fields
from sinks.deadletters.models import (
    DISCARDED,
    NAME_LENGTH,
    WAITING,
    DeadLetter,
    DeadLetterAction,
    DeadLetterTally,
    RedriveTask,
)
from sinks.deadletters.selection import Selection

DISCARD_CHUNK = 2_000
COUNT_S = 5.0


class Refused(ValueError):
    """The decision cannot be carried out; the text is for whoever made it."""


def count(selection: Selection) -> int | None:
    """How many letters wait of those selected; None when counting takes too long."""
    try:
        with query_deadline("default", COUNT_S):
            return selection.waiting().order_by().count()
    except QueryDeadlineExceeded:
        return None


def sinks_of(selection: Selection) -> dict[str, str]:
    """Key -> name of the sinks that have letters waiting in the selection."""
    if selection.ids is not None:
        keys = set(selection.waiting().order_by().values_list("sink", flat=True))
    else:
        keys = {selection.sink} if selection.sink else set()
    tallies = DeadLetterTally.objects.filter(waiting__gt=0)
    if keys or selection.ids is not None:
        tallies = tallies.filter(pk__in=keys)
    return dict(tallies.values_list("sink", "sink_name"))


def redrive(selection: Selection, *, who: str, now: datetime | None = None) -> list[RedriveTask]:
    """Ask for the selected letters to be sent again: a task for each of their sinks.

    Letters that come later are not part of it.  Raises Refused when none waits.
    """
    now = now or datetime.now(UTC)
    newest = DeadLetter.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    made = []
    for sink, name in sorted(sinks_of(selection).items()):
        own = Selection.from_json({**selection.to_json(), "sink": sink})
        if not own.waiting().exists():
            continue
        total = count(own)
        with transaction.atomic():
            task = RedriveTask.objects.create(
                sink=sink,
                sink_name=name,
                selection=own.to_json(),
                said=own.words()[:500],
                asked_by=who[:NAME_LENGTH],
                total=total,
                up_to=newest,
                created_at=now,
            )
            note("redrive", who=who, selection=own, count=total, task=task, now=now)
        made.append(task)
    if not made:
        raise Refused("None of these letters waits: there is nothing to send again.")
    return made


def discard(
    selection: Selection, *, who: str, reason: str, at_most: int, now: datetime | None = None
) -> int:
    """Give the selected letters up, at most so many; returns how many they were."""
    reason = reason.strip()
    if not reason:
        raise Refused("Say why: a discarded record is not stored anywhere else.")
    now = now or datetime.now(UTC)
    done = 0
    for sink in sorted(sinks_of(selection)):
        own = Selection.from_json({**selection.to_json(), "sink": sink})
        while done < at_most:
            moved = _discard_chunk(own, min(DISCARD_CHUNK, at_most - done), who, reason, now)
            done += moved
            if not moved:
                break
    if not done:
        raise Refused("None of these letters waits: there is nothing to discard.")
    return done


def _discard_chunk(selection: Selection, size: int, who: str, reason: str, now: datetime) -> int:
    with transaction.atomic():
        tally.lock(selection.sink)
        ids = list(selection.waiting().values_list("pk", flat=True)[:size])
        moved = 0
        for start in range(0, len(ids), 500):
            moved += DeadLetter.objects.filter(
                pk__in=ids[start : start + 500], state=WAITING
            ).update(state=DISCARDED, changed_at=now)
        tally.moved(selection.sink, WAITING, DISCARDED, moved)
        if moved:
            note("discard", who=who, selection=selection, count=moved, reason=reason, now=now)
    return moved


def edit(letter_id: int, payload: str, *, who: str, now: datetime | None = None) -> DeadLetter:
    """Put a corrected payload beside the one that was sent; the fields read from it follow.

    The original's own text takes an edit back.  Raises Refused.
    """
    now = now or datetime.now(UTC)
    text = one_line(payload)
    with transaction.atomic():
        row = DeadLetter.objects.select_for_update().filter(pk=letter_id).first()
        if row is None:
            raise Refused("There is no such letter any more.")
        if row.state != WAITING:
            raise Refused(f"Only a waiting letter can be edited; this one is {row.state}.")
        restored = text == one_line(row.payload)
        keep_as_sent(row)
        if restored:
            take_fields(row, as_sent(row))
        else:
            _derive(row, text)
        row.edited_payload = "" if restored else text
        row.edited_by = "" if restored else who[:NAME_LENGTH]
        row.edited_at = None if restored else now
        row.nbytes = len(row.current_payload.encode())
        row.changed_at = now
        row.save()
        kind = "restore" if restored else "edit"
        selection = Selection(sink=row.sink, ids=(row.pk,))
        note(kind, who=who, selection=selection, count=1, now=now)
    return row


def one_line(payload: str) -> str:
    """The payload as one line: line breaks stand only between JSON's tokens."""
    return " ".join(part.strip() for part in payload.strip().splitlines())


def _derive(row: DeadLetter, text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    limit = settings.COLLECTOR.ingest.max_record_bytes
    if len(raw) > limit:
        raise Refused(f"The payload has {len(raw):,} bytes, the most is {limit:,}.")
    read = payload_reader(row.type)
    if read is None:
        _check_object(text)
        return
    try:
        record = read(raw, tenant=row.tenant, arrival_us=microseconds(row.received_at))
    except UnreadablePayload as error:
        raise Refused(f"{str(error)[:1].upper()}{str(error)[1:]}.") from None
    take_fields(row, record)


def _check_object(text: str) -> None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"This is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise Refused("A payload is a JSON object.")


def note(
    kind: str,
    *,
    who: str,
    now: datetime,
    selection: Selection | None = None,
    count: int | None = None,
    reason: str = "",
    task: RedriveTask | None = None,
    sink: str = "",
) -> None:
    """Note a decision for good."""
    key = sink or (selection.sink if selection is not None else "")
    names = DeadLetterTally.objects.filter(pk=key).values_list("sink_name", flat=True)
    DeadLetterAction.objects.create(
        at=now,
        who=who[:NAME_LENGTH],
        kind=kind,
        sink=key,
        sink_name=names.first() or key,
        selection=selection.to_json() if selection is not None else {},
        count=count,
        reason=reason[:1000],
        task=task,
    )
