"""A store of either kind on a clock that the test moves, and a way to look into it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from jobs.states import RUNNING, SUCCEEDED
from jobs.store.database import DatabaseStore
from jobs.store.kept import KeptEvent
from jobs.store.memory import MemoryStore
from jobs.store.models import Job
from jobs.store.protocol import Again, Claimed, Draft, Ended, StepRecord, Store
from jobs.types.models import JobType
from jobs.types.spec import TypeSpec, type_spec
from pipeline.runtime.clock import FakeClock

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Stand:
    """`store` with two types, `one` and `two`; the runner `r1` has joined."""

    store: Store

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.types: dict[int, TypeSpec] = {}
        self.one = self.make_type("one")
        self.two = self.make_type("two")

    def make_type(self, name: str, **rules: Any) -> int:
        raise NotImplementedError

    def look(self, job_id: UUID) -> Any:
        """The job, with its columns as attributes."""
        raise NotImplementedError

    def events(self, job_id: UUID) -> list[KeptEvent]:
        raise NotImplementedError

    def steps(self, job_id: UUID) -> Mapping[str, StepRecord]:
        raise NotImplementedError

    def ids(self) -> list[UUID]:
        raise NotImplementedError

    # --- the same for both -----------------------------------------------------------------

    @property
    def now(self) -> datetime:
        return EPOCH + timedelta(microseconds=self.clock.time_us())

    def submit(self, type_id: int | None = None, *, payload: Any = None, **values: Any) -> UUID:
        draft = Draft(type_id=type_id or self.one, payload=payload or {}, **values)
        assert self.store.submit([draft]) == [None]
        return draft.id

    def claim(self, limit: int = 10, *, runner: str = "r1") -> list[Claimed]:
        types = list(self.types)
        return self.store.claim(runner, f"{runner}/*", limit, types=types)

    def claim_one(self, *, runner: str = "r1") -> Claimed:
        (claimed,) = self.claim(1, runner=runner)
        return claimed

    def running(self, **values: Any) -> Claimed:
        """A new job, in the hands of r1."""
        job_id = self.submit(**values)
        claimed = self.claim_one()
        assert claimed.id == job_id
        return claimed

    def end(self, job: Claimed, state: str = SUCCEEDED, **values: Any) -> bool:
        ended = Ended(id=job.id, claim=job.claim, state=state, worker="r1/1", **values)
        return self.store.write([ended])[0]

    def again(self, job: Claimed, **values: Any) -> bool:
        return self.store.write([Again(id=job.id, claim=job.claim, worker="r1/1", **values)])[0]

    def story(self, job_id: UUID) -> list[str]:
        return [event.state for event in self.events(job_id)]

    def counted(self) -> dict[int, dict[str, int]]:
        """What is really there, to compare with `counts()`."""
        counts: dict[int, dict[str, int]] = {}
        for one in self.ids():
            job = self.look(one)
            states = counts.setdefault(job.type_id, {})
            states[job.state] = states.get(job.state, 0) + 1
        return counts

    def held_by(self, runner: str) -> list[UUID]:
        jobs = (self.look(one) for one in self.ids())
        return [job.id for job in jobs if job.state == RUNNING and job.runner == runner]


class MemoryStand(Stand):
    def __init__(self) -> None:
        super().__init__()
        self.memory = MemoryStore(clock=self.clock, types=lambda: self.types)
        self.store = self.memory
        self.store.join("r1", host="here", pid=1)

    def make_type(self, name: str, **rules: Any) -> int:
        type_id = len(self.types) + 1
        self.types[type_id] = TypeSpec(id=type_id, name=name, **rules)
        return type_id

    def look(self, job_id: UUID) -> Any:
        return self.memory.look(job_id)

    def events(self, job_id: UUID) -> list[KeptEvent]:
        return list(self.memory.look(job_id).events)

    def steps(self, job_id: UUID) -> Mapping[str, StepRecord]:
        return self.memory.look(job_id).steps

    def ids(self) -> list[UUID]:
        return self.memory.ids()


class DatabaseStand(Stand):
    def __init__(self) -> None:
        super().__init__()
        self.store = DatabaseStore(now=lambda: self.now, types=lambda: self.types)
        self.store.join("r1", host="here", pid=1)

    def make_type(self, name: str, **rules: Any) -> int:
        row = JobType.objects.create(name=name, **rules)
        self.types[row.pk] = type_spec(row, ())
        return row.pk

    def look(self, job_id: UUID) -> Any:
        return Job.objects.get(pk=job_id)

    def events(self, job_id: UUID) -> list[KeptEvent]:
        return [
            KeptEvent(
                at=event.at,
                state=event.state,
                claim=event.claim,
                attempt=event.attempt,
                worker=event.worker,
                text=event.text,
            )
            for event in Job.objects.get(pk=job_id).events.order_by("id")
        ]

    def steps(self, job_id: UUID) -> Mapping[str, StepRecord]:
        return {
            step.name: StepRecord(
                name=step.name,
                state=step.state,
                stage=step.stage,
                attempts=step.attempts,
                started_at=step.started_at,
                finished_at=step.finished_at,
                duration_ms=step.duration_ms,
                status_code=step.status_code,
                result=step.result,
                error=step.error,
            )
            for step in Job.objects.get(pk=job_id).steps.all()
        }

    def ids(self) -> list[UUID]:
        return list(Job.objects.order_by("pk").values_list("pk", flat=True))
