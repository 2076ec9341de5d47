"""The words of operators and clients, put into rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from jobs.states import RUNNING
from jobs.store.models import Job
from jobs.store.protocol import Changed, Verb
from jobs.store.story import Move, chunks, locked, steps_anew, tell
from jobs.store.verbs import move, own_attempt
from jobs.types.spec import TypeSpec


def change(
    verb: Verb,
    ids: Sequence[UUID],
    *,
    by: str,
    args: Mapping[str, Any],
    types: Mapping[int, TypeSpec],
    now: datetime,
) -> dict[UUID, Changed]:
    changed: dict[UUID, Changed] = {}
    # In order: two who change the same jobs wait for each other, and do not deadlock.
    for chunk in chunks(sorted(set(ids))):
        moves: list[Move] = []
        anew: list[UUID] = []
        for job in locked(Job.objects.filter(pk__in=chunk)):
            rule = types.get(job.type_id)
            deadline_s = None if rule is None else rule.deadline_s
            to = move(verb, job, by=by, args=args, now=now, deadline_s=deadline_s)
            if to is None:
                asked = job.state == RUNNING and job.cancel_asked_at is not None
                asked = asked and verb == "cancel"
                changed[job.pk] = Changed(state=job.state, changed=False, asked=asked)
                continue
            changed[job.pk] = Changed(state=to.state, changed=True, asked=to.asked)
            attempt = own_attempt(job)
            moves.append(
                Move(job=job, state=to.state, text=to.text, fields=to.fields, attempt=attempt)
            )
            if to.again:
                anew.append(job.pk)
        tell(moves, now)
        steps_anew(anew)
    return changed
