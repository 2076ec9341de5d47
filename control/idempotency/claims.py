"""Claims in the control database: taken, settled and resolved, many at a time.

A claim's id is made by whoever takes it, so that every statement here can be repeated after a lost
answer.  The unique constraint decides between processes; nothing is locked for longer than one
short transaction.  Called on the desk's thread and by the heart's tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from control.idempotency.models import DONE, PARTIAL, PENDING, IdempotencyKey

_ROUNDS = 3

Place: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A request that carries a key, and the answer it will get if all goes well.

    `parts` name what must be in a log, a frame each, for all of it to be kept.
    """

    id: UUID
    tenant: str
    path: str
    key: str
    digest: str
    log_id: str
    parts: tuple[str, ...]
    status: int
    response: str

    @property
    def place(self) -> Place:
        return self.tenant, self.path, self.key


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The key is this request's.  `missing` are the parts that no log holds yet."""

    id: UUID
    missing: tuple[str, ...]
    resumed: bool = False

    def frame_key(self, part: str) -> str:
        """What the frame of a part carries, for the day that somebody else adopts it."""
        return f"{self.id.hex}/{part}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The request was answered before, and this is how."""

    status: int
    response: str


@dataclass(frozen=True, slots=True)
class Pending:
    """The first request with the key has no answer yet."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The key belongs to a request with another body."""


Outcome: TypeAlias = Claim | Replay | Pending | Mismatch


def claim_all(wanted: Sequence[Wanted], *, now: datetime, keep_for: timedelta) -> list[Outcome]:
    """What becomes of each of these requests, in order."""
    outcomes: dict[UUID, Outcome] = {}
    left = list(wanted)
    for _ in range(_ROUNDS):
        if not left:
            break
        found = _insert_and_read(left, now=now, keep_for=keep_for)
        for one in left:
            outcome = _outcome(one, found.get(one.place), now)
            if outcome is not None:
                outcomes[one.id] = outcome
        left = [one for one in left if one.id not in outcomes]
    # Still changing hands after so many looks: as good as pending.
    return [outcomes.get(one.id, Pending()) for one in wanted]


def _insert_and_read(
    wanted: Sequence[Wanted], *, now: datetime, keep_for: timedelta
) -> dict[Place, IdempotencyKey]:
    rows = [
        IdempotencyKey(
            id=one.id,
            tenant=one.tenant,
            path=one.path,
            key=one.key,
            digest=one.digest,
            log_id=one.log_id,
            parts=list(one.parts),
            status=one.status,
            response=one.response,
            claimed_at=now,
            expires_at=now + keep_for,
        )
        # In one order everywhere: two processes that wait for each other's rows would deadlock.
        for one in sorted(wanted, key=lambda one: one.place)
    ]
    IdempotencyKey.objects.bulk_create(rows, ignore_conflicts=True)
    places = Q()
    for tenant, path, key in {one.place for one in wanted}:
        places |= Q(tenant=tenant, path=path, key=key)
    return {(row.tenant, row.path, row.key): row for row in IdempotencyKey.objects.filter(places)}


def _outcome(wanted: Wanted, row: IdempotencyKey | None, now: datetime) -> Outcome | None:
    """None when the row went meanwhile: look again."""
    if row is None:
        return None
    if row.id == wanted.id:
        return Claim(id=row.id, missing=tuple(wanted.parts))
    if row.expires_at <= now:
        IdempotencyKey.objects.filter(pk=row.id, expires_at__lte=now).delete()
        return None
    if row.digest != wanted.digest:
        return Mismatch()
    if row.state == DONE:
        return Replay(status=row.status, response=row.response)
    if row.state == PENDING:
        return Pending()
    return _resume(wanted, row, now)


def _resume(wanted: Wanted, row: IdempotencyKey, now: datetime) -> Outcome | None:
    """Take over what a dead process left half done; one of several contenders gets it."""
    taken = IdempotencyKey.objects.filter(pk=row.id, state=PARTIAL).update(
        state=PENDING, log_id=wanted.log_id, response=wanted.response, claimed_at=now
    )
    if not taken:
        return None
    missing = tuple(part for part in wanted.parts if part not in row.kept)
    return Claim(id=row.id, missing=missing, resumed=True)


def finish_all(answers: Iterable[tuple[UUID, str | None]]) -> None:
    """These claims' records are in a log; a response replaces the one that was foreseen."""
    as_foreseen: list[UUID] = []
    for claim_id, response in answers:
        if response is None:
            as_foreseen.append(claim_id)
        else:
            IdempotencyKey.objects.filter(pk=claim_id).update(state=DONE, response=response)
    if as_foreseen:
        IdempotencyKey.objects.filter(pk__in=as_foreseen).update(state=DONE)


def release_all(claims: Iterable[tuple[UUID, bool]]) -> None:
    """Nothing was kept for these claims now; what a resumed one had kept before stays known."""
    fresh: list[UUID] = []
    resumed: list[UUID] = []
    for claim_id, was_resumed in claims:
        (resumed if was_resumed else fresh).append(claim_id)
    pending = IdempotencyKey.objects.filter(state=PENDING)
    if fresh:
        pending.filter(pk__in=fresh).delete()
    if resumed:
        pending.filter(pk__in=resumed).update(state=PARTIAL, log_id="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """How many of a dead owner's claims were found to be done, half done, and never kept."""

    done: int = 0
    partial: int = 0
    forgotten: int = 0

    @property
    def any(self) -> bool:
        return bool(self.done or self.partial or self.forgotten)


def resolve(log_id: str, keys: frozenset[str]) -> Resolved:
    """Settle the open claims of a dead process by what its log holds."""
    held: dict[str, set[str]] = {}
    for key in keys:
        claim_id, _, part = key.partition("/")
        held.setdefault(claim_id, set()).add(part)
    done: list[UUID] = []
    forgotten: list[UUID] = []
    partial: list[IdempotencyKey] = []
    with transaction.atomic():
        for row in IdempotencyKey.objects.filter(log_id=log_id, state=PENDING):
            kept = {*row.kept, *held.get(row.id.hex, ())}
            if kept.issuperset(row.parts):
                done.append(row.id)
            elif kept:
                row.kept, row.state, row.log_id = sorted(kept), PARTIAL, ""
                partial.append(row)
            else:
                forgotten.append(row.id)
        IdempotencyKey.objects.filter(pk__in=done).update(state=DONE)
        IdempotencyKey.objects.filter(pk__in=forgotten).delete()
        for row in partial:
            row.save(update_fields=["kept", "state", "log_id"])
    return Resolved(done=len(done), partial=len(partial), forgotten=len(forgotten))
