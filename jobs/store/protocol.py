"""What a runner and the API ask of wherever jobs are kept, and what is handed to and fro.

Two implementations pass one contract suite: `jobs.store.memory` and `jobs.store.database`.  Each
method is one transaction: it happens as a whole, with its events and tallies, or it raises and has
not happened.  `now` is the database's clock; durations that a living runner measures are not: see
`rescue`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias
from uuid import UUID

from jobs.ids import new_job_id
from jobs.states import DEFAULT_PRIORITY


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedBy:
    """The Idempotency-Key that a submission came with; `response` is answered again."""

    key: str
    digest: str
    status: int
    response: str
    keep_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A job to be.  `run_at` None: now.  `deadline_at` None: `deadline_s` after its `run_at`."""

    type_id: int
    payload: Any
    id: UUID = field(default_factory=new_job_id)
    tenant: str = "default"
    priority: int = DEFAULT_PRIORITY
    run_at: datetime | None = None
    deadline_at: datetime | None = None
    deadline_s: float | None = None
    correlation_id: str = ""
    service: str = ""
    submitted_by: str = ""
    request_id: str = ""
    traceparent: str = ""
    webhook_url: str = ""
    schedule: str = ""
    keyed: KeyedBy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """The key was used before: the digest of what came with it, and what was answered."""

    digest: str
    status: int
    response: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What became of a step.  Times are UTC."""

    name: str
    state: str
    stage: int = 1
    attempts: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: float | None = None
    status_code: int | None = None
    result: Any = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A job in a runner's hands.  `attempts` were spent before this one.

    `deadline_in_s` is from the moment of the claim, by the database's clock; None: there is none.
    """

    id: UUID
    type_id: int
    claim: int
    attempts: int
    payload: Any
    tenant: str
    priority: int
    correlation_id: str
    service: str
    traceparent: str
    webhook_url: str
    created_at: datetime
    deadline_in_s: float | None
    waited_s: float  # from when it could have run until it was claimed
    steps: Mapping[str, StepRecord] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Steps began or ended; the job goes on."""

    id: UUID
    claim: int
    steps: Sequence[StepRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The job ended: succeeded, dead or cancelled.  `spent`: this attempt counts."""

    id: UUID
    claim: int
    state: str
    worker: str
    reason: str = ""
    result: Any = None
    error: str = ""
    text: str = ""  # of the event
    spent: bool = True
    ran_s: float = 0.0
    steps: Sequence[StepRecord] = ()
    webhook: Mapping[str, Any] | None = None  # arguments of the outbox's `enqueue`, without `now`


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """The job goes back, to be tried in `delay_s`.  Not `spent`: the attempt costs nothing."""

    id: UUID
    claim: int
    worker: str
    delay_s: float = 0.0
    spent: bool = True
    error: str = ""
    text: str = ""
    steps: Sequence[StepRecord] = ()


Write: TypeAlias = Progress | Ended | Again


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What an operator's or client's word did to one job: its state now; whether that is new.

    `asked`: it runs, and its runner was told to cancel it.
    """

    state: str
    changed: bool
    asked: bool = False


Verb: TypeAlias = Literal["cancel", "retry", "reprioritise", "discard"]


class Store(Protocol):
    """Safe from any thread."""

    # --- taking in -------------------------------------------------------------------------

    def submit(self, drafts: Sequence[Draft]) -> list[Repeated | None]:
        """Keep these jobs.  For each None, or what was answered when its key was first used."""
        ...

    # --- running ---------------------------------------------------------------------------

    def join(self, runner: str, *, host: str, pid: int, process: str = "") -> None:
        """Be known as a runner; harmless again."""
        ...

    def beat(self, runner: str, figures: Mapping[str, Any]) -> bool:
        """Renew the lease: one statement.  False when the runner is not known any more."""
        ...

    def runners(self) -> dict[str, int]:
        """The known runners and their beats.  Who watches them tells the dead from the living."""
        ...

    def leave(self, runner: str) -> int:
        """Give back, uncounted, whatever the runner still holds, and be no longer known."""
        ...

    def give_back(self, runner: str, *, keep: Collection[UUID]) -> int:
        """Queue, uncounted, what the runner holds by the book but does not have in its hands.

        A claim whose answer was lost took jobs that nobody runs: whoever saw `claim` raise calls
        this, with all that he has, before he claims again.
        """
        ...

    def rescue(self, runner: str, *, beats: int, lost_at: Mapping[int, int]) -> int | None:
        """Queue the jobs of a runner that was seen dead at `beats`, each an attempt the poorer.

        Those of a type that has spent `lost_at[type_id]` attempts are dead (`lost`).  Returns how
        many; None when the runner has beaten since, or somebody else was quicker.
        """
        ...

    def promote(self, limit: int = 1000) -> int:
        """Queue the scheduled jobs whose time has come; returns how many."""
        ...

    def overdue(self, limit: int = 1000) -> int:
        """What waits beyond its deadline is dead (`deadline`); returns how many.

        A claim leaves them to the runner that claims; this is for those that nobody claims.
        """
        ...

    def pull_back(self, by_s: float) -> int:
        """The clock was set back: let backoffs that were reckoned by the old one end as meant."""
        ...

    def claim(
        self, runner: str, workers: str, limit: int, *, types: Collection[int]
    ) -> list[Claimed]:
        """Take up to `limit` queued jobs of these types, by priority, then age.

        Types with limits (`max_concurrent`, `rate_per_s`) keep them across all runners.  Their
        state is `running`, their worker `workers` until a write says better.  Nothing is
        given to a runner that is not known.
        """
        ...

    def write(self, writes: Sequence[Write]) -> list[bool]:
        """All in one transaction.  False where the claim is not the job's any more: not written."""
        ...

    def cancels(self, runner: str) -> list[tuple[UUID, int]]:
        """The jobs (id, claim) that the runner holds and that somebody wants cancelled."""
        ...

    def has_queued(self) -> bool:
        """Whether there may be anything to claim; cheap."""
        ...

    # --- words of operators and clients ----------------------------------------------------

    def change(
        self, verb: Verb, ids: Sequence[UUID], *, by: str, args: Mapping[str, Any] | None = None
    ) -> dict[UUID, Changed]:
        """Do it to each of these that it can be done to; ids that are not there are left out."""
        ...

    # --- counting --------------------------------------------------------------------------

    def counts(self) -> dict[int, dict[str, int]]:
        """Jobs by type and state, without counting them."""
        ...

    def fold(self) -> int:
        """Fold tallies into counts and minutes, one process at a time; returns how many."""
        ...

    def forget(self, state: str, before: datetime, *, type_id: int | None, limit: int) -> int:
        """Delete finished jobs of a state, with their steps and events; returns how many."""
        ...
