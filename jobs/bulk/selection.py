"""Which jobs an operator means: those of a list, or whatever a filter matches.

Kept with a bulk action as JSON.  Pure but for the queries it describes; found in batches by rising
id, each state by its own index, so that a million finished jobs beside them cost nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from jobs.bulk.models import CANCEL, DISCARD, REPRIORITISE, RETRY
from jobs.ids import first_id_at
from jobs.states import CANCELLED, DEAD, FINISHED, OPEN, SCHEDULED, STATES
from jobs.store.models import Job

# The states from which each action takes a job elsewhere.
APPLIES: Mapping[str, tuple[str, ...]] = {
    RETRY: (DEAD, CANCELLED, SCHEDULED),
    CANCEL: OPEN,
    REPRIORITISE: OPEN,
    DISCARD: (DEAD,),
}
ANY, ALL_OPEN, ALL_FINISHED = "", "open", "finished"
GROUPS: Mapping[str, tuple[str, ...]] = {ANY: STATES, ALL_OPEN: OPEN, ALL_FINISHED: FINISHED}
_MOMENTS = ("since", "until")


def id_of(text: str) -> UUID | None:
    """The id that a text is; None where it is another text."""
    try:
        return UUID(text.strip())
    except ValueError:
        return None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """`ids` alone, or the filter's fields, where an empty one matches every job."""

    ids: tuple[UUID, ...] = ()
    state: str = ANY
    type: str = ""
    tenant: str = ""
    correlation_id: str = ""
    service: str = ""
    schedule: str = ""
    reason: str = ""
    q: str = ""
    since: datetime | None = None
    until: datetime | None = None

    @property
    def states(self) -> tuple[str, ...]:
        return GROUPS.get(self.state, (self.state,))

    def matching(self, jobs: QuerySet[Job]) -> QuerySet[Job]:
        """Those of `jobs` that are meant, but for the state."""
        if self.ids:
            return jobs.filter(pk__in=self.ids)
        if self.type:
            jobs = jobs.filter(type__name=self.type)
        for name in ("tenant", "correlation_id", "service", "schedule", "reason"):
            if value := getattr(self, name):
                jobs = jobs.filter(**{name: value})
        if self.since is not None:
            jobs = jobs.filter(pk__gte=first_id_at(self.since))
        if self.until is not None:
            jobs = jobs.filter(pk__lt=first_id_at(self.until))
        if self.q:
            found = id_of(self.q)
            jobs = jobs.filter(Q(correlation_id=self.q) | Q(pk=found) if found else
                               Q(correlation_id=self.q))  # fmt: skip
        return jobs

    def apply(self, jobs: QuerySet[Job]) -> QuerySet[Job]:
        """Those of `jobs` that are meant."""
        jobs = self.matching(jobs)
        if self.ids or self.state == ANY:
            return jobs
        if self.state in STATES:
            return jobs.filter(state=self.state)
        return jobs.filter(state__in=self.states)

    def states_for(self, action: str) -> tuple[str, ...]:
        """The states of the jobs that are meant and that `action` does something to."""
        meant = STATES if self.ids else self.states
        return tuple(state for state in APPLIES[action] if state in meant)

    def batch(
        self, action: str, *, after: UUID | None, until: UUID | None, limit: int
    ) -> list[UUID]:
        """The next of them that `action` does something to, by rising id."""
        jobs = self.matching(Job.objects.order_by("pk"))
        if after is not None:
            jobs = jobs.filter(pk__gt=after)
        if until is not None:
            jobs = jobs.filter(pk__lte=until)
        found = [
            self._waiting(action, state, jobs).values_list("pk", flat=True)[:limit]
            for state in self.states_for(action)
        ]
        return list(heapq.merge(*(list(rows) for rows in found)))[:limit]

    def _waiting(self, action: str, state: str, jobs: QuerySet[Job]) -> QuerySet[Job]:
        """What is planned for later runs before its time only where such jobs were meant."""
        found = jobs.filter(state=state)
        if action == RETRY and state == SCHEDULED and not self.ids and self.state != SCHEDULED:
            return found.filter(claim__gt=0)
        return found

    def count(self, action: str, *, until: UUID | None, limit: int) -> int:
        """How many `action` does something to, counted no further than `limit`."""
        jobs = self.matching(Job.objects.order_by())
        if until is not None:
            jobs = jobs.filter(pk__lte=until)
        counted = 0
        for state in self.states_for(action):
            if counted >= limit:
                break
            counted += self._waiting(action, state, jobs).values("pk")[: limit - counted].count()
        return counted

    def words(self) -> str:
        """What is meant, for people."""
        if self.ids:
            return f"{len(self.ids):,} chosen job{'' if len(self.ids) == 1 else 's'}"
        said = [
            f"{name.replace('_', ' ')} {_word(value)}"
            for name, value in self._set().items()
            if name != "q"
        ]
        if self.q:
            said.append(f"id or correlation id {self.q}")
        return "jobs with " + ", ".join(said) if said else "every job"

    def to_json(self) -> dict[str, Any]:
        if self.ids:
            return {"ids": [str(one) for one in self.ids]}
        return {"filters": {name: _word(value) for name, value in self._set().items()}}

    @classmethod
    def from_json(cls, stored: Any) -> Selection:
        """Raises ValueError where the row was written past its checks."""
        if not isinstance(stored, dict):
            raise ValueError("the selection is not an object")
        if "ids" in stored:
            ids = stored["ids"]
            if not isinstance(ids, list) or not ids:
                raise ValueError("the selection names no job")
            return cls(ids=tuple(UUID(str(one)) for one in ids))
        filters = stored.get("filters")
        known = {one.name for one in fields(cls)} - {"ids"}
        if not isinstance(filters, dict) or not filters.keys() <= known:
            # A field that was not understood would make the action one on more jobs than meant.
            raise ValueError("the selection has filters that are not known")
        values: dict[str, Any] = {name: str(value) for name, value in filters.items()}
        for name in _MOMENTS:
            if name in values:
                values[name] = datetime.fromisoformat(values[name])
        return cls(**values)

    def query(self) -> dict[str, str]:
        """The filter's fields as the list's address has them."""
        return {name: _word(value) for name, value in self._set().items()}

    def _set(self) -> dict[str, Any]:
        values = ((one.name, getattr(self, one.name)) for one in fields(self) if one.name != "ids")
        return {name: value for name, value in values if value}


def _word(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def of_ids(ids: Sequence[str], *, at_most: int) -> Selection | None:
    """The selection of these ids; None where they are none, too many, or no ids."""
    found = [one for one in map(id_of, ids) if one is not None]
    if not found or len(found) != len(ids) or len(found) > at_most:
        return None
    return Selection(ids=tuple(sorted(set(found))))
