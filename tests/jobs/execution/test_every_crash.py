"""A runner that dies at any moment, and services that fail as they like: what is called how often.

Each attempt runs for real; the world around it is played here.  A crash is an exception that ends
the run at one of its writes, before or after it was kept; the next attempt starts from what was
kept, as a rescue would have it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.downstream.calls import CallRequest, Delayed
from jobs.execution import aggregation
from jobs.execution.executor import Executor
from jobs.execution.handlers import Handlers
from jobs.execution.interruption import Interruption
from jobs.states import DEAD, STEP_FAILED, STEP_SUCCEEDED, SUCCEEDED
from jobs.store.protocol import Again, Claimed, Ended, Progress, StepRecord
from jobs.types.spec import TypeSpec
from pipeline.errors import PermanentError, RetryableError
from pipeline.runtime.clock import FakeClock
from tests.jobs.execution.harness import Service, a_job, a_type, call

MAX_ATTEMPTS = 3


class Crash(BaseException):
    """The process is gone."""


class World:
    """One job among runners that die: what is kept of it, and what its services were asked."""

    def __init__(self, spec: TypeSpec, answers: dict[str, list[str]], crashes: list[int]) -> None:
        self.spec = spec
        self.answers = answers
        self.crashes = crashes
        self.kept: dict[str, StepRecord] = {}
        self.calls: Counter[str] = Counter()
        self.succeeded: Counter[str] = Counter()
        self.tokens: dict[str, set[str]] = {}
        self.interrupted = 0
        self.delays = 0
        self.writes = 0
        self.clock = FakeClock()
        self.executor = Executor(
            call=Service(**{step.name: self.answer for step in spec.steps}),
            handlers=Handlers(patterns=()),
            clock=self.clock,
            step_threads=0,  # every order that one thread gives is one of those that many do
        )

    def answer(self, request: CallRequest, interruption: Interruption) -> Any:
        name = request.path.removeprefix("/")
        script = self.answers[name]
        said = script.pop(0) if script else "ok"
        if said == "delayed":
            self.delays += 1
            return Delayed(1.0, "its breaker is open")
        self.calls[name] += 1
        self.tokens.setdefault(name, set()).add(request.headers["Idempotency-Key"])
        if said == "failed":
            return RetryableError("503")
        if said == "refused":
            return PermanentError("404")
        self.succeeded[name] += 1
        return {"of": name}

    def keep(self, steps: tuple[StepRecord, ...]) -> None:
        self.kept |= {one.name: one for one in steps}

    def write(self, progress: Progress, wait: bool) -> bool:
        """A crash takes what was not waited for with it, and may come before or after the rest."""
        self.writes += 1
        before, after = 2 * self.writes, 2 * self.writes + 1
        if before in self.crashes:
            raise Crash
        if wait:
            self.keep(tuple(progress.steps))
        if after in self.crashes:
            raise Crash
        return True

    def run(self) -> Ended | None:
        """Until it ends; None when its runners died once too often."""
        attempts = claim = 0
        while True:
            claim += 1
            assert claim < 60, "it does not end"
            job = replace(a_job(), attempts=attempts, claim=claim, steps=dict(self.kept))
            done = self.attempt(job)
            if done is None:
                attempts += 1
                if attempts >= MAX_ATTEMPTS:
                    return None
                continue
            assert (done.id, done.claim) == (job.id, claim)
            self.keep(tuple(done.steps))
            if isinstance(done, Ended):
                return done
            attempts += done.spent
            assert attempts < MAX_ATTEMPTS

    def attempt(self, job: Claimed) -> Ended | Again | None:
        try:
            done = self.executor.run(
                job,
                self.spec,
                worker="w",
                record=self.write,
                interruption=Interruption(clock=self.clock),
            )
            self.writes += 1
            if 2 * self.writes in self.crashes:
                raise Crash
        except Crash:
            self.interrupted += 1
            return None
        return done


@st.composite
def worlds(draw: st.DrawFn) -> World:
    names = [f"s{number}" for number in range(draw(st.integers(1, 4)))]
    steps = [call(name, stage=draw(st.integers(1, 3))) for name in names]
    rule = draw(st.sampled_from(["all", "any", "quorum", "collect"]))
    quorum = draw(st.integers(1, len(steps))) if rule == "quorum" else None
    spec = a_type(*steps, aggregation=rule, quorum=quorum, max_attempts=MAX_ATTEMPTS)
    said = st.sampled_from(["ok", "ok", "failed", "failed", "delayed", "refused"])
    answers = {name: draw(st.lists(said, max_size=5)) for name in names}
    return World(spec, answers, draw(st.lists(st.integers(2, 30), max_size=3)))


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_a_kill_repeats_at_most_the_step_in_flight(world: World) -> None:
    done = world.run()
    for name, times in world.succeeded.items():
        # Once, and again only where a crash came between the call and what was kept of it.
        assert times <= 1 + world.interrupted, name
    repeated = sum(times - 1 for times in world.succeeded.values() if times > 1)
    assert repeated <= world.interrupted
    assert all(len(tokens) == 1 for tokens in world.tokens.values())
    # No step is called more often than there are attempts.
    assert all(times <= MAX_ATTEMPTS for times in world.calls.values()), world.calls
    if done is None:
        assert world.interrupted
        return
    # What the job became is what its steps add up to, and its result tells of all of them.
    verdict = aggregation.decided(world.spec, world.kept)
    assert done.state == verdict
    results = {one.name for one in world.kept.values() if one.state == STEP_SUCCEEDED}
    failures = {one.name for one in world.kept.values() if one.state == STEP_FAILED}
    assert done.result["steps"] == {name: {"of": name} for name in results}
    assert done.result["failed"].keys() == failures
    assert (done.state == DEAD) == bool(done.error)
    assert (done.state == SUCCEEDED) == (done.reason == "")
    assert {one.state for one in world.kept.values()} <= {"succeeded", "failed", "skipped"}
