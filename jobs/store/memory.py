"""Jobs in this process's memory: the Store that ships for tests and for embedding.

`_lock` guards everything; what is handed out are copies.  The clock is injected, and stands for the
database's.  What a database would not keep is refused here as there.
"""

from __future__ import annotations

import heapq
import json
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from jobs.states import (
    ASKED,
    CANCELLED,
    DEAD,
    DEADLINE,
    FINISHED,
    LOST,
    OPEN,
    QUEUED,
    RUNNING,
    SCHEDULED,
    STEP_RETRYING,
    STEP_RUNNING,
    STEP_SUCCEEDED,
)
from jobs.store import gates, groups, holding
from jobs.store.kept import KeptEvent, KeptJob, KeptRunner
from jobs.store.protocol import Changed, Claimed, Draft, KeyedBy, Repeated, StepRecord, Verb, Write
from jobs.store.texts import GIVEN_BACK, LOST_DEAD, LOST_QUEUED, OVERDUE, PULLED_BACK, TIME_CAME
from jobs.store.values import json_text
from jobs.store.verbs import move, own_attempt
from jobs.types.spec import TypeSpec
from pipeline.runtime.clock import Clock, SystemClock

_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


class MemoryStore:
    """`types` says which types have limits and deadlines; `minutes` are what `fold` has made."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        types: Callable[[], Mapping[int, TypeSpec]] = dict,
    ) -> None:
        self._clock = clock or SystemClock()
        self._types = types
        self._lock = threading.Lock()
        self._jobs: dict[UUID, KeptJob] = {}
        self._queued: dict[UUID, KeptJob] = {}
        self._scheduled: dict[UUID, KeptJob] = {}
        self._running: dict[UUID, KeptJob] = {}
        self._runners: dict[str, KeptRunner] = {}
        self._keys: dict[tuple[str, str], tuple[KeyedBy, datetime]] = {}
        self._gates: dict[int, gates.Gate] = {}
        self._counts: Counter[tuple[int, str]] = Counter()
        self._changes = 0
        self.webhooks: list[Mapping[str, Any]] = []

    def _now(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self._clock.time_us())

    # --- looking, for tests ----------------------------------------------------------------

    def look(self, job_id: UUID) -> KeptJob:
        """A copy of the job with its story.  Raises KeyError."""
        with self._lock:
            job = self._jobs[job_id]
            return replace(job, steps=dict(job.steps), events=list(job.events))

    def ids(self) -> list[UUID]:
        with self._lock:
            return sorted(self._jobs)

    # --- taking in -------------------------------------------------------------------------

    def submit(self, drafts: Sequence[Draft]) -> list[Repeated | None]:
        payloads = [json_text(draft.payload, what="the payload") for draft in drafts]
        with self._lock:
            now = self._now()
            return [self._submit(*one, now=now) for one in zip(drafts, payloads, strict=True)]

    def _submit(self, draft: Draft, payload: str, *, now: datetime) -> Repeated | None:
        if draft.keyed is not None:
            place = draft.tenant, draft.keyed.key
            used = self._keys.get(place)
            if used is not None and used[1] > now:
                first = used[0]
                return Repeated(digest=first.digest, status=first.status, response=first.response)
            self._keys[place] = draft.keyed, now + timedelta(seconds=draft.keyed.keep_s)
        if draft.id not in self._jobs:
            job = KeptJob.of(draft, json.loads(payload), now)
            self._jobs[job.id] = job
            self._enter(job, SCHEDULED if job.run_at > now else QUEUED, now)
        return None

    def _enter(
        self,
        job: KeptJob,
        state: str,
        now: datetime,
        *,
        text: str = "",
        attempt: int | None = None,
        worker: str | None = None,
    ) -> None:
        """The job is in that state from now on."""
        if job.state:
            self._counts[job.type_id, job.state] -= 1
            self._held_in(job.state).pop(job.id, None)
        job.state = state
        self._counts[job.type_id, state] += 1
        self._held_in(state)[job.id] = job
        self._changes += 1
        self._say(job, now, text=text, attempt=attempt, worker=worker)

    def _say(
        self,
        job: KeptJob,
        now: datetime,
        *,
        text: str,
        attempt: int | None = None,
        worker: str | None = None,
    ) -> None:
        job.events.append(
            KeptEvent(
                at=now,
                state=job.state,
                claim=job.claim,
                attempt=job.attempts if attempt is None else attempt,
                worker=job.worker if worker is None else worker,
                text=text,
            )
        )

    def _held_in(self, state: str) -> dict[UUID, KeptJob]:
        held = {QUEUED: self._queued, SCHEDULED: self._scheduled, RUNNING: self._running}
        return held.get(state, {})

    # --- running ---------------------------------------------------------------------------

    def join(self, runner: str, *, host: str, pid: int, process: str = "") -> None:
        with self._lock:
            self._runners.setdefault(runner, KeptRunner(host=host, pid=pid, process=process))

    def beat(self, runner: str, figures: Mapping[str, Any]) -> bool:
        with self._lock:
            known = self._runners.get(runner)
            if known is not None:
                known.beats += 1
                known.figures = dict(figures)
            return known is not None

    def runners(self) -> dict[str, int]:
        with self._lock:
            return {name: runner.beats for name, runner in self._runners.items()}

    def leave(self, runner: str) -> int:
        with self._lock:
            self._runners.pop(runner, None)
            return self._give_back(runner, keep=())

    def give_back(self, runner: str, *, keep: Collection[UUID]) -> int:
        with self._lock:
            return self._give_back(runner, keep=keep)

    def _give_back(self, runner: str, *, keep: Collection[UUID]) -> int:
        now = self._now()
        held = [job for job in self._held_by(runner) if job.id not in keep]
        for job in held:
            self._free(job, now, QUEUED, GIVEN_BACK)
        return len(held)

    def _held_by(self, runner: str) -> list[KeptJob]:
        return [job for job in self._running.values() if job.runner == runner]

    def _free(self, job: KeptJob, now: datetime, state: str, text: str, reason: str = "") -> None:
        """Out of its runner's hands, without a word of the runner's."""
        if state == QUEUED and job.cancel_asked_at is not None:
            state, reason = CANCELLED, ASKED
        for name, step in job.steps.items():
            if step.state == STEP_RUNNING:
                job.steps[name] = replace(step, state=STEP_RETRYING)
        job.runner, job.reason = "", reason
        if state in FINISHED:
            job.finished_at = now
            job.error = job.error if state == CANCELLED else text
        else:
            job.run_at = now
        self._enter(job, state, now, text=text)

    def rescue(self, runner: str, *, beats: int, lost_at: Mapping[int, int]) -> int | None:
        with self._lock:
            known = self._runners.get(runner)
            if known is None or known.beats != beats:
                return None
            del self._runners[runner]
            now = self._now()
            held = self._held_by(runner)
            for job in held:
                job.attempts += 1
                limit = lost_at.get(job.type_id)
                if limit is not None and job.attempts >= limit and job.cancel_asked_at is None:
                    self._free(job, now, DEAD, LOST_DEAD.format(attempts=job.attempts), LOST)
                else:
                    self._free(job, now, QUEUED, LOST_QUEUED)
            return len(held)

    def promote(self, limit: int = 1000) -> int:
        with self._lock:
            now = self._now()
            due = [job for job in self._scheduled.values() if job.run_at <= now]
            due = heapq.nsmallest(limit, due, key=lambda job: (job.run_at, job.id))
            for job in due:
                self._enter(job, QUEUED, now, text=TIME_CAME)
            return len(due)

    def overdue(self, limit: int = 1000) -> int:
        with self._lock:
            now = self._now()
            late = [
                job
                for job in self._jobs.values()
                if job.state in (QUEUED, SCHEDULED)
                and job.deadline_at is not None
                and job.deadline_at <= now
            ][:limit]
            for job in late:
                job.reason, job.finished_at, job.error = DEADLINE, now, OVERDUE
                self._enter(job, DEAD, now, text=OVERDUE)
            return len(late)

    def pull_back(self, by_s: float) -> int:
        with self._lock:
            now = self._now()
            moved = 0
            for job in self._scheduled.values():
                if job.claim and job.run_at > now and job.events[-1].at > now:
                    job.run_at = max(now, job.run_at - timedelta(seconds=by_s))
                    self._say(job, now, text=PULLED_BACK)
                    moved += 1
            return moved

    def claim(
        self, runner: str, workers: str, limit: int, *, types: Collection[int]
    ) -> list[Claimed]:
        with self._lock:
            if runner not in self._runners:
                return []
            now = self._now()
            rooms = self._rooms(types, limit, now)
            claimed: list[Claimed] = []
            queued = (job for job in self._queued.values() if rooms.get(job.type_id))
            # Those of a type without room left are passed over: look at more than are wanted.
            for job in sorted(queued, key=lambda job: (-job.priority, job.id)):
                if len(claimed) == limit:
                    break
                if rooms[job.type_id]:
                    rooms[job.type_id] -= 1
                    claimed.append(self._claim(job, runner, workers, now))
            return claimed

    def _rooms(self, types: Collection[int], limit: int, now: datetime) -> dict[int, int]:
        rules = self._types()
        rooms = dict.fromkeys(types, limit)
        running = Counter(job.type_id for job in self._running.values())
        for type_id in rooms:
            rule = rules.get(type_id)
            if rule is not None and gates.is_limited(rule):
                gate = self._gates.get(type_id) or gates.full(rule, now.timestamp())
                gate = self._gates[type_id] = gate.at(rule, now.timestamp())
                rooms[type_id] = gates.room(rule, gate, running[type_id], limit)
        return rooms

    def _claim(self, job: KeptJob, runner: str, workers: str, now: datetime) -> Claimed:
        job.claim += 1
        job.runner, job.worker, job.started_at = runner, workers, now
        self._enter(job, RUNNING, now, attempt=job.attempts + 1)
        gate = self._gates.get(job.type_id)
        if gate is not None:
            self._gates[job.type_id] = gate.less(1)
        return job.claimed(now)

    def write(self, writes: Sequence[Write]) -> list[bool]:
        written = [False] * len(writes)
        with self._lock:
            now = self._now()
            for row in groups.rows_of(writes):
                job = self._running.get(row.id)
                if job is None or job.claim != row.claim:
                    continue
                for step in row.steps:
                    job.steps[step.name] = _record(step)
                if row.state != groups.PROGRESS:
                    self._end(job, row, now)
                for index in row.members:
                    written[index] = True
        return written

    def _end(self, job: KeptJob, row: groups.WriteRow, now: datetime) -> None:
        state = row.state
        if state == groups.AGAIN:
            if job.cancel_asked_at is not None:
                state, row.reason = CANCELLED, ASKED
            else:
                state = SCHEDULED if row.delay_s > 0 else QUEUED
        job.attempts += row.spent
        job.runner, job.worker, job.reason = "", row.worker, row.reason
        if state in FINISHED:
            job.finished_at = now
            job.result = None if row.result is None else json.loads(row.result)
        else:
            job.run_at = now + timedelta(seconds=row.delay_s)
        job.error = row.error if row.state != groups.AGAIN else row.error or job.error
        held = holding.fold(job.events, row.text) if holding.is_hold(row) else None
        if held is not None:
            row.text = held.text
            del job.events[-2 - held.drop : -2]
        if row.webhook is not None:
            self.webhooks.append(row.webhook)
        self._enter(job, state, now, text=row.text)

    def cancels(self, runner: str) -> list[tuple[UUID, int]]:
        with self._lock:
            held = self._held_by(runner)
            return [(job.id, job.claim) for job in held if job.cancel_asked_at is not None]

    def has_queued(self) -> bool:
        with self._lock:
            return bool(self._queued)

    # --- words of operators and clients ----------------------------------------------------

    def change(
        self, verb: Verb, ids: Sequence[UUID], *, by: str, args: Mapping[str, Any] | None = None
    ) -> dict[UUID, Changed]:
        with self._lock:
            now = self._now()
            there = [self._jobs[one] for one in dict.fromkeys(ids) if one in self._jobs]
            return {job.id: self._change(verb, job, by, args or {}, now) for job in there}

    def _change(
        self, verb: Verb, job: KeptJob, by: str, args: Mapping[str, Any], now: datetime
    ) -> Changed:
        rule = self._types().get(job.type_id)
        deadline_s = None if rule is None else rule.deadline_s
        to = move(verb, job, by=by, args=args, now=now, deadline_s=deadline_s)
        if to is None:
            asked = job.state == RUNNING and job.cancel_asked_at is not None
            return Changed(state=job.state, changed=False, asked=verb == "cancel" and asked)
        attempt = own_attempt(job)
        for name, value in to.fields.items():
            setattr(job, name, value)
        if to.again:
            for name, step in job.steps.items():
                if step.state != STEP_SUCCEEDED:
                    job.steps[name] = replace(step, state=STEP_RETRYING)
        if to.state != job.state:
            self._enter(job, to.state, now, text=to.text, attempt=attempt, worker="")
        else:
            self._say(job, now, text=to.text, attempt=attempt, worker="")
        return Changed(state=job.state, changed=True, asked=to.asked)

    # --- counting --------------------------------------------------------------------------

    def counts(self) -> dict[int, dict[str, int]]:
        with self._lock:
            counts: dict[int, dict[str, int]] = {}
            for (type_id, state), jobs in self._counts.items():
                if jobs:
                    counts.setdefault(type_id, {})[state] = jobs
            return counts

    def fold(self) -> int:
        """Counts are always folded in here; says how many changes there were since the last."""
        with self._lock:
            changes, self._changes = self._changes, 0
            return changes

    def forget(self, state: str, before: datetime, *, type_id: int | None, limit: int) -> int:
        if state in OPEN:
            raise ValueError(f"Jobs that are {state} have not ended and cannot be forgotten.")
        with self._lock:
            old = [
                job
                for job in self._jobs.values()
                if job.state == state
                and job.finished_at is not None
                and job.finished_at < before
                and type_id in (None, job.type_id)
            ]
            old = heapq.nsmallest(limit, old, key=lambda job: (job.finished_at, job.id))
            for job in old:
                del self._jobs[job.id]
                self._counts[job.type_id, state] -= 1
            return len(old)


def _record(step: groups.StepRow) -> StepRecord:
    return StepRecord(
        name=step.name,
        state=step.state,
        stage=step.stage,
        attempts=step.attempts,
        started_at=step.started_at,
        finished_at=step.finished_at,
        duration_ms=step.duration_ms,
        status_code=step.status_code,
        result=None if step.result is None else json.loads(step.result),
        error=step.error,
    )
