"""The outbox's rows: what is due, claiming one, and writing down what came of it.

Every move is a conditional UPDATE, so that of many processes one makes it.  A message that is
being sent is due again when its lease is over: whoever had it has been killed, or is so late that
it must be taken for dead.  Runs on the deliverer's threads; keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from django.db import transaction
from django.db.models import F, Q, QuerySet

from control.outbox.models import (
    ERROR_CHARS,
    FAILED,
    OPEN,
    SENDING,
    SENT,
    WAITING,
    OutboxAttempt,
    OutboxMessage,
)

Lane: TypeAlias = tuple[str, str]  # a sender's name, and its channel

MOST_LANES = 1_000
# So many attempts long a message keeps those behind it in order; then they may overtake.
ORDERED_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of an attempt.  `retry_at` only where it is to be tried again.

    `doubted_at`: since when each answer to it sounds final.
    """

    word: str
    text: str
    took_ms: float = 0.0
    retry_at: datetime | None = None
    doubted_at: datetime | None = None


def due_lanes(now: datetime) -> list[Lane]:
    """The channels that have something to send now."""
    due = OutboxMessage.objects.filter(state__in=OPEN, next_at__lte=now)
    lanes = due.order_by().values_list("sender", "channel").distinct()
    return list(lanes[:MOST_LANES])


def overdue(lane: Lane, now: datetime) -> list[OutboxMessage]:
    """Messages of the channel that nobody sends now and that are past their time."""
    open_ones = _of(lane).filter(expires_at__lte=now)
    return list(open_ones.filter(Q(state=WAITING) | Q(next_at__lte=now)).order_by("id")[:100])


def next_of(lane: Lane, now: datetime) -> OutboxMessage | None:
    """The message of the channel whose turn it is; None while another must come first."""
    of_lane = _of(lane)
    first = of_lane.filter(next_at__lte=now).order_by("id").first()
    if first is None:
        return None
    ahead = Q(pk__lt=first.pk, attempts__gt=0, attempts__lt=ORDERED_ATTEMPTS)
    if of_lane.filter(Q(state=SENDING) | ahead, next_at__gt=now).exists():
        return None
    return first


def claim(message: OutboxMessage, *, owner: str, now: datetime, lease_s: float) -> bool:
    """Take the message as it was read; False when another did."""
    until = now + timedelta(seconds=lease_s)
    was_sending, number, former = message.state == SENDING, message.attempts, message.owner
    with transaction.atomic():
        taken = OutboxMessage.objects.filter(
            pk=message.pk, state=message.state, attempts=number, next_at=message.next_at
        ).update(
            state=SENDING,
            owner=owner,
            lease_until=until,
            next_at=until,
            attempts=F("attempts") + 1,
        )
        if not taken:
            return False
        if was_sending:
            OutboxAttempt.objects.create(
                message=message,
                number=number,
                at=message.lease_until or now,
                outcome=OutboxAttempt.SILENT,
                text="The process that sent it ended before it could say what came of it.",
                process=former,
            )
    message.state, message.owner, message.attempts = SENDING, owner, number + 1
    message.lease_until = message.next_at = until
    return True


def finish(
    message: OutboxMessage, outcome: Outcome, *, now: datetime, settled: Callable[[bool], None]
) -> bool:
    """Write down what came of a claimed message; False when it is no longer ours.

    `settled` is called in the same transaction when the message has ended.
    """
    ours = OutboxMessage.objects.filter(
        pk=message.pk, state=SENDING, owner=message.owner, attempts=message.attempts
    )
    with transaction.atomic():
        if outcome.retry_at is not None:
            held = ours.update(
                state=WAITING,
                next_at=outcome.retry_at,
                doubted_at=outcome.doubted_at,
                lease_until=None,
                last_error=_storable(outcome.text),
            )
        else:
            held = ours.update(**_ended(outcome, now))
            if held:
                settled(outcome.word == SENT)
        _log(message, outcome, now)
    return bool(held)


def give_up(
    message: OutboxMessage, text: str, *, now: datetime, settled: Callable[[bool], None]
) -> bool:
    """End a message that nobody sends now, without another attempt."""
    outcome = Outcome(word=OutboxAttempt.FAILED, text=text)
    with transaction.atomic():
        held = OutboxMessage.objects.filter(
            pk=message.pk,
            state=message.state,
            attempts=message.attempts,
            next_at=message.next_at,
        ).update(**_ended(outcome, now))
        if held:
            settled(False)
            _log(message, outcome, now)
    return bool(held)


def _ended(outcome: Outcome, now: datetime) -> dict[str, object]:
    sent = outcome.word == OutboxAttempt.SENT
    return {
        "state": SENT if sent else FAILED,
        "finished_at": now,
        "lease_until": None,
        "last_error": "" if sent else _storable(outcome.text),
    }


def _log(message: OutboxMessage, outcome: Outcome, now: datetime) -> None:
    OutboxAttempt.objects.create(
        message=message,
        number=message.attempts,
        at=now,
        took_ms=round(outcome.took_ms, 1),
        outcome=outcome.word,
        text=_storable(outcome.text),
        process=message.owner,
    )


def _storable(text: str) -> str:
    """Cut, and without what a database takes in no text: the other end may answer anything."""
    whole = text.encode("utf-8", "replace").decode().replace("\0", "\\u0000")
    return whole[:ERROR_CHARS]


def _of(lane: Lane) -> QuerySet[OutboxMessage]:
    return OutboxMessage.objects.filter(sender=lane[0], channel=lane[1], state__in=OPEN)
