"""A bulk action as a row: begun by an operator, carried out in batches by whoever holds its lease.

Each holder has a name of its own; its writes are bound to it, so that one that was taken for dead
changes nothing more.  What is done to a job twice is done once: the Store says of each whether it
was changed.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from django.db.models import F, Q, QuerySet

from control.admin.deadline import QueryDeadlineExceeded, query_deadline
from jobs.bulk.models import ACTIONS, REPRIORITISE, BulkAction
from jobs.bulk.selection import Selection
from jobs.ids import first_id_at
from jobs.states import HIGHEST_PRIORITY, LOWEST_PRIORITY
from jobs.store.protocol import Changed, Verb

LEASE = timedelta(seconds=15)
BATCH = 500
COUNTED_AT_MOST, COUNTING_S = 1_000_000, 5.0
ERROR_CHARS = 500
FORGOTTEN_AFTER = timedelta(days=90)


class Changer(Protocol):
    """The part of the Store that is used here."""

    def change(
        self, verb: Verb, ids: Sequence[UUID], *, by: str, args: Mapping[str, Any] | None = None
    ) -> dict[UUID, Changed]: ...


class Fenced(Exception):
    """Somebody else carries the action out by now, or it was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The right to carry an action out, while the row names this owner."""

    pk: int
    owner: str
    action: Verb
    args: Mapping[str, Any]
    by: str
    selection: Selection
    until: UUID | None
    counted: bool


def problem_of(action: str, args: Mapping[str, Any]) -> str:
    """Why an action cannot be asked for like this; "" when it can."""
    if action not in ACTIONS:
        return f"There is no action {action}; there are {', '.join(ACTIONS)}."
    priority = args.get("priority")
    if action == REPRIORITISE and (
        not isinstance(priority, int) or not LOWEST_PRIORITY <= priority <= HIGHEST_PRIORITY
    ):
        return f"A priority is a whole number, {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}."
    return ""


def begin(
    action: str,
    selection: Selection,
    *,
    asked_by: Any,
    now: datetime,
    args: Mapping[str, Any] | None = None,
) -> BulkAction:
    """Ask for it; a process carries it out.  Raises ValueError."""
    if problem := problem_of(action, args or {}):
        raise ValueError(problem)
    return BulkAction.objects.create(
        action=action,
        args=dict(args or {}),
        selection=selection.to_json(),
        # Jobs submitted from now on were not seen by who asks.
        until_id=None if selection.ids else first_id_at(now),
        # A request's user is a stand-in, which relations do not take.
        asked_by_id=getattr(asked_by, "pk", None),
        created_at=now,
        expected=len(selection.ids) or None,
    )


def waiting() -> bool:
    """Whether an action has not ended."""
    return BulkAction.objects.filter(finished_at=None).exists()


def claim(process: str, *, now: datetime) -> Held | None:
    """The oldest action that nobody carries out, or whose owner has fallen silent."""
    free = Q(owner="") | Q(lease_until__lt=now) | Q(lease_until=None)
    for row in BulkAction.objects.filter(free, finished_at=None).order_by("pk")[:10]:
        owner = f"{process}:{uuid.uuid4().hex}"[-100:]
        taken = BulkAction.objects.filter(free, pk=row.pk, finished_at=None)
        if not taken.update(owner=owner, lease_until=now + LEASE):
            continue
        held = _held(row, owner, now=now)
        if held is not None:
            return held
    return None


def _held(row: BulkAction, owner: str, *, now: datetime) -> Held | None:
    try:
        selection = Selection.from_json(row.selection)
        if problem := problem_of(row.action, row.args):
            raise ValueError(problem)
    except (ValueError, TypeError) as error:
        _own(row.pk, owner).update(
            finished_at=now, error=f"It cannot be carried out: {error}"[:ERROR_CHARS], owner=""
        )
        return None
    who = row.asked_by.get_username() if row.asked_by is not None else "somebody"
    verb: Any = row.action
    return Held(
        pk=row.pk,
        owner=owner,
        action=verb,
        args=row.args,
        by=f"{who} (bulk action {row.pk})",
        selection=selection,
        until=row.until_id,
        counted=row.expected is not None,
    )


def count(held: Held) -> None:
    """Find out how many jobs there are to deal with, unless that takes too long."""
    if held.counted:
        return
    try:
        with query_deadline("default", COUNTING_S):
            many = held.selection.count(held.action, until=held.until, limit=COUNTED_AT_MOST)
    except QueryDeadlineExceeded:
        return
    if many < COUNTED_AT_MOST:
        _own(held.pk, held.owner).filter(expected=None).update(expected=many)


def step(held: Held, store: Changer, *, now: datetime, batch: int = BATCH) -> bool:
    """Deal with the next batch; False when there was none and the action has ended.

    Raises Fenced, and whatever the Store raises.
    """
    row = _own(held.pk, held.owner).filter(stopped=False, finished_at=None).first()
    if row is None:
        end(held, now=now)
        raise Fenced
    ids = held.selection.batch(held.action, after=row.position, until=held.until, limit=batch)
    if not ids:
        end(held, now=now)
        return False
    told = store.change(held.action, ids, by=held.by, args=held.args)
    changed = sum(1 for one in told.values() if one.changed or one.asked)
    kept = _own(held.pk, held.owner).update(
        position=ids[-1],
        looked_at=F("looked_at") + len(ids),
        changed=F("changed") + changed,
        lease_until=now + LEASE,
        error="",
    )
    if not kept:
        raise Fenced
    return True


def end(held: Held, *, now: datetime) -> None:
    """It is done, or was stopped."""
    _own(held.pk, held.owner).filter(finished_at=None).update(
        finished_at=now, owner="", lease_until=None
    )


def release(held: Held, *, error: str = "", now: datetime | None = None) -> None:
    """Let another process go on: at once, or after the lease where something failed."""
    changes: dict[str, Any] = {"lease_until": None, "owner": ""}
    if error and now is not None:
        changes = {"lease_until": now + LEASE, "error": error[:ERROR_CHARS]}
    _own(held.pk, held.owner).update(**changes)


def stop(pk: int, *, now: datetime) -> bool:
    """Have it end after the batch that is under way; what was done stays done."""
    asked = BulkAction.objects.filter(pk=pk, finished_at=None).update(stopped=True)
    BulkAction.objects.filter(pk=pk, finished_at=None, owner="").update(finished_at=now)
    return bool(asked)


def forget(*, now: datetime) -> int:
    """Delete those that ended long ago."""
    old = BulkAction.objects.filter(finished_at__lt=now - FORGOTTEN_AFTER)
    return old.filter(pk__in=list(old.values_list("pk", flat=True)[:1_000])).delete()[0]


def _own(pk: int, owner: str) -> QuerySet[BulkAction]:
    return BulkAction.objects.filter(pk=pk, owner=owner)
