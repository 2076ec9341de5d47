"""Random lives of jobs: each store does as a small model says, and its counts are the real ones."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobs.states import CANCELLED, DEAD, DISCARDED, FINISHED, QUEUED, RUNNING, SCHEDULED, SUCCEEDED
from jobs.store.protocol import Claimed
from tests.jobs.store.stand import DatabaseStand, MemoryStand, Stand

RUNNERS = ("r1", "r2")
LOST_AT = 3


class JobLives(RuleBasedStateMachine):
    """`expected` holds state, attempts, claim and priority of each job, by the model."""

    make: type[Stand] = MemoryStand

    @initialize()
    def begin(self) -> None:
        self.stand = self.make()
        self.stand.store.join("r2", host="there", pid=2)
        self.expected: dict[UUID, list[Any]] = {}
        self.due: dict[UUID, Any] = {}
        self.asked: set[UUID] = set()
        self.held: dict[UUID, Claimed] = {}
        self.holder: dict[UUID, str] = {}
        self.old: list[Claimed] = []
        self.beats = Counter(dict.fromkeys(RUNNERS, 0))

    def pick(self, data: st.DataObject, ids: Any) -> UUID:
        return data.draw(st.sampled_from(sorted(ids)))

    # --- rules -----------------------------------------------------------------------------

    @rule(priority=st.integers(0, 9), wait_s=st.sampled_from([0, 0, 5]), two=st.booleans())
    def submit(self, priority: int, wait_s: int, two: bool) -> None:
        run_at = self.stand.now + timedelta(seconds=wait_s)
        type_id = self.stand.two if two else self.stand.one
        job = self.stand.submit(type_id, priority=priority, run_at=run_at)
        self.expected[job] = [SCHEDULED if wait_s else QUEUED, 0, 0, priority]
        self.due[job] = run_at

    @rule(limit=st.integers(1, 4), runner=st.sampled_from(RUNNERS))
    def claim(self, limit: int, runner: str) -> None:
        claimed = self.stand.claim(limit, runner=runner)
        queued = [(-one[3], job) for job, one in self.expected.items() if one[0] == QUEUED]
        assert [job.id for job in claimed] == [job for _, job in sorted(queued)[:limit]]
        for job in claimed:
            expected = self.expected[job.id]
            expected[0], expected[2] = RUNNING, expected[2] + 1
            assert [job.attempts, job.claim, job.priority] == expected[1:]
            self.held[job.id], self.holder[job.id] = job, runner

    def let_go(self, job: UUID) -> None:
        self.old.append(self.held.pop(job))
        del self.holder[job]
        self.asked.discard(job)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), state=st.sampled_from([SUCCEEDED, DEAD]))
    def end(self, data: st.DataObject, state: str) -> None:
        job = self.pick(data, self.held)
        assert self.stand.end(self.held[job], state)
        self.expected[job][0] = state
        self.expected[job][1] += 1
        self.let_go(job)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), delay_s=st.sampled_from([0.0, 5.0]), spent=st.booleans())
    def again(self, data: st.DataObject, delay_s: float, spent: bool) -> None:
        job = self.pick(data, self.held)
        assert self.stand.again(self.held[job], delay_s=delay_s, spent=spent)
        waits = SCHEDULED if delay_s else QUEUED
        self.expected[job][0] = CANCELLED if job in self.asked else waits
        self.expected[job][1] += spent
        self.due[job] = self.stand.now + timedelta(seconds=delay_s)
        self.let_go(job)

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def write_late(self, data: st.DataObject) -> None:
        late = data.draw(st.sampled_from(self.old))
        assert not self.stand.end(late)

    @rule(runner=st.sampled_from(RUNNERS))
    def beat(self, runner: str) -> None:
        assert self.stand.store.beat(runner, {})
        self.beats[runner] += 1

    def freed(self, runner: str, spent: int) -> None:
        for job in [job for job, holder in self.holder.items() if holder == runner]:
            expected = self.expected[job]
            expected[1] += spent
            expected[0] = DEAD if spent and expected[1] >= LOST_AT else QUEUED
            expected[0] = CANCELLED if job in self.asked else expected[0]
            self.let_go(job)
        self.beats[runner] = 0
        self.stand.store.join(runner, host="again", pid=3)

    @rule(runner=st.sampled_from(RUNNERS))
    def leave(self, runner: str) -> None:
        held = list(self.holder.values()).count(runner)
        assert self.stand.store.leave(runner) == held
        self.freed(runner, 0)

    @rule(runner=st.sampled_from(RUNNERS), late=st.booleans())
    def rescue(self, runner: str, late: bool) -> None:
        held = list(self.holder.values()).count(runner)
        lost_at = {self.stand.one: LOST_AT, self.stand.two: LOST_AT}
        beats = self.beats[runner] - late
        rescued = self.stand.store.rescue(runner, beats=beats, lost_at=lost_at)
        if late:
            assert rescued is None
        else:
            assert rescued == held
            self.freed(runner, 1)

    @rule(seconds=st.sampled_from([1.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.stand.clock.advance(seconds)
        due = [
            job
            for job, one in self.expected.items()
            if one[0] == SCHEDULED and self.due[job] <= self.stand.now
        ]
        assert self.stand.store.promote() == len(due)
        for job in due:
            self.expected[job][0] = QUEUED

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), verb=st.sampled_from(["cancel", "retry", "discard", "reprioritise"]))
    def change(self, data: st.DataObject, verb: Any) -> None:
        job = self.pick(data, self.expected)
        expected = self.expected[job]
        state, before = expected[0], list(expected)
        changed = self.stand.store.change(verb, [job], by="m", args={"priority": 5})[job]
        asked = False
        if verb == "cancel" and state in (QUEUED, SCHEDULED):
            expected[0] = CANCELLED
        elif verb == "cancel" and state == RUNNING:
            asked = job not in self.asked
            self.asked.add(job)
        elif verb == "retry" and (state in (DEAD, CANCELLED)):
            expected[:2] = [QUEUED, 0]
        elif verb == "retry" and state == SCHEDULED:
            expected[0] = QUEUED
        elif verb == "discard" and state == DEAD:
            expected[0] = DISCARDED
        elif verb == "reprioritise" and state not in FINISHED:
            expected[3] = 5
        assert changed.state == expected[0]
        assert changed.changed == (asked or expected != before)

    @rule(state=st.sampled_from(FINISHED))
    def forget(self, state: str) -> None:
        self.stand.clock.advance(0.5)
        gone = [job for job, one in self.expected.items() if one[0] == state]
        forgotten = self.stand.store.forget(state, self.stand.now, type_id=None, limit=99)
        assert forgotten == len(gone)
        for job in gone:
            del self.expected[job]

    @rule()
    def fold(self) -> None:
        self.stand.store.fold()

    # --- what always holds -----------------------------------------------------------------

    @invariant()
    def jobs_are_as_expected(self) -> None:
        if not hasattr(self, "stand"):
            return
        found = {}
        for job_id in self.stand.ids():
            job = self.stand.look(job_id)
            found[job_id] = [job.state, job.attempts, job.claim, job.priority]
        assert found == self.expected

    @invariant()
    def counts_are_the_real_ones(self) -> None:
        if hasattr(self, "stand"):
            assert self.stand.store.counts() == self.stand.counted()

    @invariant()
    def cancels_reach_who_holds_the_job(self) -> None:
        if not hasattr(self, "stand"):
            return
        for runner in RUNNERS:
            told = {job for job, _ in self.stand.store.cancels(runner)}
            assert told == {job for job in self.asked if self.holder[job] == runner}


def lives(kind: type[Stand]) -> type[JobLives]:
    return type("Lives", (JobLives,), {"make": kind})


def test_lives_in_memory() -> None:
    run_state_machine_as_test(
        lives(MemoryStand),
        settings=settings(max_examples=60, stateful_step_count=40, deadline=None),
    )


class EachInItsOwnTransaction(JobLives):
    make = DatabaseStand

    def __init__(self) -> None:
        super().__init__()
        from django.db import transaction

        self.atomic = transaction.atomic()
        self.atomic.__enter__()

    def teardown(self) -> None:
        from django.db import transaction

        transaction.set_rollback(True)
        self.atomic.__exit__(None, None, None)


@pytest.mark.django_db
def test_lives_in_the_database() -> None:
    run_state_machine_as_test(
        EachInItsOwnTransaction,
        settings=settings(
            max_examples=12,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
