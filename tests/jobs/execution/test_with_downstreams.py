"""An attempt that calls real listeners through the real door to the network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from control.outbound.policy import AddressPolicy
from jobs.downstream.calls import Downstreams
from jobs.execution.executor import Executor
from jobs.execution.handlers import Handlers
from jobs.execution.interruption import CANCEL, Interruption
from jobs.states import CANCELLED, DEAD, PERMANENT, STEP_SKIPPED, SUCCEEDED
from jobs.store.protocol import Again, Claimed, Ended, Progress
from jobs.toy.journal import Journal
from jobs.toy.server import Toy
from jobs.types.spec import DownstreamSpec, StepSpec, TypeSpec
from pipeline.runtime.clock import SystemClock
from tests.jobs.execution.harness import GENEROUS_S, JOB_ID, a_job, a_type


class Caller:
    def __init__(self, url: str) -> None:
        self.clock = SystemClock()
        self.service = DownstreamSpec(id=1, name="toy", base_url=url, timeout_s=GENEROUS_S)
        self.downstreams = Downstreams(clock=self.clock, policy=AddressPolicy(loopback_bound=False))
        self.executor = Executor(
            call=self.downstreams.call, handlers=Handlers(patterns=()), clock=self.clock
        )
        self.interruption = Interruption(clock=self.clock)
        self.progress: list[Progress] = []

    def step(self, name: str, path: str, **fields: Any) -> StepSpec:
        return StepSpec(name=name, path=path, downstream=self.service, **fields)

    def run(self, spec: TypeSpec, job: Claimed | None = None) -> Ended | Again | None:
        def record(progress: Progress, wait: bool) -> bool:
            self.progress.append(progress)
            return True

        return self.executor.run(
            job or a_job(),
            spec,
            worker="w",
            record=record,
            interruption=self.interruption,
        )


class Telling(Journal):
    """Tells of each call that came."""

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Semaphore(0)

    def ended(self, **line: Any) -> None:
        super().ended(**line)
        self.came.release()


@pytest.fixture
def journal() -> Telling:
    return Telling()


@pytest.fixture
def toy(journal: Telling) -> Iterator[Toy]:
    toy = Toy()
    toy.journal = journal
    toy.start()
    yield toy
    toy.stop()


@pytest.fixture
def make(toy: Toy) -> Iterator[Callable[[], Caller]]:
    made: list[Caller] = []

    def make() -> Caller:
        made.append(Caller(toy.url))
        return made[-1]

    yield make
    for one in made:
        one.executor.close(GENEROUS_S)
        one.downstreams.close()


def test_a_job_calls_with_its_token(make: Callable[[], Caller], journal: Telling) -> None:
    caller = make()
    done = caller.run(a_type(caller.step("user", "/users/{payload.user_id}")))
    assert isinstance(done, Ended)
    assert done.state == SUCCEEDED
    assert done.steps[0].status_code == 200
    (called,) = journal.lines(limit=10)
    assert (called["path"], called["token"]) == ("/users/456", f"{JOB_ID}:user")


@pytest.mark.parametrize(
    "value", ["x\r\nX-Admin: yes", "x\r\n\r\nGET /other HTTP/1.1\r\n\r\n"], ids=["header", "call"]
)
def test_a_payload_injects_nothing(
    value: str, make: Callable[[], Caller], journal: Telling
) -> None:
    caller = make()
    job = a_job(payload={"name": value})
    in_header = caller.step("user", "/users", headers={"X-Name": "{payload.name}"})
    done = caller.run(a_type(in_header), job)
    assert isinstance(done, Ended)
    assert (done.state, done.reason) == (DEAD, PERMANENT)
    assert journal.lines(limit=10) == []
    in_path = caller.step("user", "/users/{payload.name}")
    done = caller.run(a_type(in_path), job)
    assert isinstance(done, Ended)
    assert done.state == SUCCEEDED
    (called,) = journal.lines(limit=10)
    assert called["path"].startswith("/users/x%0D%0A")


def test_a_cancellation_reaches_calls_that_hang(
    make: Callable[[], Caller], journal: Telling
) -> None:
    caller = make()
    steps = [caller.step(name, "/faults/hang") for name in ("one", "two")]
    with ThreadPoolExecutor(1) as worker:
        running = worker.submit(caller.run, a_type(*steps))
        for _ in steps:
            assert journal.came.acquire(timeout=GENEROUS_S)
        caller.interruption.interrupt(CANCEL)
        done = running.result(GENEROUS_S)
    assert isinstance(done, Ended)
    assert done.state == CANCELLED
    found = {one.name: one for said in caller.progress for one in said.steps}
    found |= {one.name: one for one in done.steps}
    assert {one.state for one in found.values()} == {STEP_SKIPPED}
