"""How many jobs are what, from the Store's counts; never counted in the table of jobs.

Runs in request threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jobs.states import OPEN, STATES
from jobs.store.database import store
from jobs.types.models import JobType


@dataclass(frozen=True, kw_only=True)
class Counts:
    """By type and state; what is not there is none."""

    by_type: Mapping[int, Mapping[str, int]] = field(default_factory=dict)

    def of(self, state: str, type_id: int | None = None) -> int:
        if type_id is not None:
            return max(0, self.by_type.get(type_id, {}).get(state, 0))
        return max(0, sum(row.get(state, 0) for row in self.by_type.values()))

    @property
    def by_state(self) -> dict[str, int]:
        return {state: self.of(state) for state in STATES}

    def open(self, type_id: int | None = None) -> int:
        return sum(self.of(state, type_id) for state in OPEN)

    @property
    def total(self) -> int:
        return sum(self.by_state.values())


def counts() -> Counts:
    return Counts(by_type=store().counts())


def type_names() -> dict[int, str]:
    return dict(JobType.objects.values_list("pk", "name"))
