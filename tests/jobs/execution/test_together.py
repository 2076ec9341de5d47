"""Steps of one stage, at the same time: decided early, told to end, left behind, shared helpers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import structlog

from jobs.downstream.calls import CallRequest
from jobs.execution.interruption import CANCEL, DECIDED, LOST, Interrupted, Interruption
from jobs.states import (
    CANCELLED,
    DEAD,
    PERMANENT,
    STEP_FAILED,
    STEP_RUNNING,
    STEP_SKIPPED,
    STEP_SUCCEEDED,
    SUCCEEDED,
)
from jobs.states import DEADLINE as DEADLINE_REASON
from jobs.store.protocol import Ended, Progress
from pipeline.errors import PermanentError
from tests.jobs.execution.harness import (
    GENEROUS_S,
    Service,
    a_job,
    a_type,
    bench,
    call,
)

pytestmark = pytest.mark.concurrency


class Hanging:
    """Hangs until told to end, and keeps the words it was told."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.words: list[str] = []

    def __call__(self, request: CallRequest, interruption: Interruption) -> None:
        told = threading.Event()
        self.began.release()
        with interruption.telling(told.set):
            assert told.wait(GENEROUS_S)
        self.words.append(interruption.why)
        raise Interrupted(interruption.why)

    def await_began(self, times: int) -> None:
        for _ in range(times):
            assert self.began.acquire(timeout=GENEROUS_S)


def after(hanging: Hanging, times: int, act: Any) -> Callable[[CallRequest, Interruption], Any]:
    """Acts once so many others hang."""

    def acting(request: CallRequest, interruption: Interruption) -> Any:
        hanging.await_began(times)
        return act

    return acting


def test_they_run_at_the_same_time() -> None:
    together = threading.Barrier(3)

    def meet(request: CallRequest, interruption: Interruption) -> str:
        together.wait(GENEROUS_S)
        return "met"

    with bench(Service(a=meet, b=meet, c=meet)) as b:
        done = b.run(a_type(call("a"), call("b"), call("c")))
    assert isinstance(done, Ended)
    assert done.state == SUCCEEDED
    assert threading.current_thread().name in b.service.threads
    said = b.written.said()
    assert sorted(said[:3]) == [(name, STEP_RUNNING, False) for name in ("a", "b", "c")]
    # Each that ends while others run is written; whatever came last goes with the job's end.
    assert len(said) + len(done.steps) == 6
    assert done.steps


def test_without_helpers_the_worker_does_all_of_them() -> None:
    with bench(step_threads=0) as b:
        done = b.run(a_type(call("a"), call("b"), call("c")))
    assert isinstance(done, Ended)
    assert done.state == SUCCEEDED
    assert b.service.paths == ["/a", "/b", "/c"]
    assert b.service.threads == {threading.current_thread().name}


def test_any_that_succeeds_ends_the_others() -> None:
    hanging = Hanging()
    with bench(Service(a=hanging, b=after(hanging, 2, "won"), c=hanging)) as b:
        spec = a_type(call("a"), call("b"), call("c"), call("d", stage=2), aggregation="any")
        done = b.run(spec)
    assert isinstance(done, Ended)
    assert done.state == SUCCEEDED
    assert done.result["steps"] == {"b": "won"}
    assert hanging.words == [DECIDED, DECIDED]
    steps = b.steps(done)
    assert [steps[name].state for name in "abc"] == [STEP_SKIPPED, STEP_SUCCEEDED, STEP_SKIPPED]
    assert "d" not in steps
    # It was written while the others still ran.
    assert ("b", STEP_SUCCEEDED, True) in b.written.said()


def test_all_with_one_that_fails_ends_the_others() -> None:
    hanging = Hanging()
    with bench(Service(a=hanging, b=after(hanging, 1, PermanentError("404")))) as b:
        done = b.run(a_type(call("a"), call("b")))
    assert isinstance(done, Ended)
    assert (done.state, done.reason, done.error) == (DEAD, PERMANENT, "step b: 404")
    assert b.steps(done)["a"].state == STEP_SKIPPED
    assert hanging.words == [DECIDED]


@pytest.mark.parametrize(
    ("third", "state"), [("yes", SUCCEEDED), (PermanentError("404"), DEAD)], ids=["met", "missed"]
)
def test_a_quorum_is_decided_as_soon_as_it_can_be(third: Any, state: str) -> None:
    hanging = Hanging()
    service = Service(a=hanging, b="yes", c=after(hanging, 1, third), d=PermanentError("404"))
    with bench(service) as b:
        spec = a_type(*map(call, "abcd"), aggregation="quorum", quorum=2 if third == "yes" else 3)
        done = b.run(spec)
    assert isinstance(done, Ended)
    assert done.state == state
    assert hanging.words == [DECIDED]


def test_a_cancellation_reaches_every_call() -> None:
    hanging = Hanging()
    with bench(Service(a=hanging, b=hanging, c=hanging)) as b, ThreadPoolExecutor(1) as worker:
        running = worker.submit(b.run, a_type(call("a"), call("b"), call("c")))
        hanging.await_began(3)
        b.interruption.interrupt(CANCEL)
        done = running.result(GENEROUS_S)
    assert isinstance(done, Ended)
    assert done.state == CANCELLED
    assert hanging.words == [CANCEL] * 3
    assert {one.state for one in b.steps(done).values()} == {STEP_SKIPPED}


def test_a_claim_lost_on_a_helper_ends_the_run() -> None:
    hanging = Hanging()
    with bench(Service(a=hanging, b=after(hanging, 1, "late"))) as b:

        def fence(progress: Progress, wait: bool) -> bool:
            return not wait

        done = b.executor.run(
            a_job(),
            a_type(call("a"), call("b")),
            worker="w",
            record=fence,
            interruption=b.interruption,
        )
    assert done is None
    assert hanging.words == [LOST]


def test_a_deadline_that_comes_while_others_are_waited_for_ends_them() -> None:
    hanging = Hanging()

    def on_helper(request: CallRequest, interruption: Interruption) -> Any:
        if threading.current_thread().name.startswith("collector-step"):
            return hanging(request, interruption)
        hanging.await_began(1)
        return "quick"

    with bench(Service(a=on_helper, b=on_helper)) as b, ThreadPoolExecutor(1) as worker:
        running = worker.submit(b.run, a_type(call("a"), call("b")), a_job(deadline_in_s=30.0))
        b.clock.await_waiting(1)
        b.clock.advance(30.0)
        done = running.result(GENEROUS_S)
    assert isinstance(done, Ended)
    assert (done.state, done.reason) == (DEAD, DEADLINE_REASON)
    states = {one.state for one in b.steps(done).values()}
    assert states == {STEP_SUCCEEDED, STEP_FAILED}


def test_a_step_that_does_not_end_when_told_is_left_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release, began, ended = threading.Event(), threading.Event(), threading.Event()

    def deaf(request: CallRequest, interruption: Interruption) -> str:
        if threading.current_thread().name.startswith("collector-step"):
            began.set()
            assert release.wait(GENEROUS_S)
            ended.set()
            return "far too late"
        assert began.wait(GENEROUS_S)
        return "won"

    with bench(Service(a=deaf, b=deaf)) as b, ThreadPoolExecutor(1) as worker:
        running = worker.submit(b.run, a_type(call("a"), call("b"), aggregation="any"))
        b.clock.await_waiting(1)
        b.clock.advance(2.0)
        done = running.result(GENEROUS_S)
        before = len(b.written.progress)
        release.set()
        assert ended.wait(GENEROUS_S)
        assert b.executor.close(GENEROUS_S)
    assert isinstance(done, Ended)
    assert done.state == SUCCEEDED
    assert list(done.result["steps"].values()) == ["won"]
    left = next(one for one in b.steps(done).values() if one.state == STEP_SKIPPED)
    assert left.error == "the job was decided without it, and did not end"
    # What it brought in the end is not looked at.
    assert len(b.written.progress) == before
    assert "a helper failed" not in caplog.text


def test_log_lines_of_helpers_say_whose_they_are() -> None:
    fields: dict[str, dict[str, Any]] = {}
    together = threading.Barrier(2)

    def look(request: CallRequest, interruption: Interruption) -> None:
        fields[threading.current_thread().name] = structlog.contextvars.get_contextvars()
        together.wait(GENEROUS_S)

    with bench(Service(a=look, b=look)) as b:
        b.run(a_type(call("a"), call("b")))
    assert len(fields) == 2
    expected = {"job_id": str(a_job().id), "correlation_id": "job-123", "worker_id": "w-1"}
    assert all(expected.items() <= one.items() for one in fields.values())
    assert not expected.keys() & structlog.contextvars.get_contextvars().keys()


def test_many_jobs_share_few_helpers() -> None:
    names = [f"s{number}" for number in range(6)]
    with bench(step_threads=3) as b, ThreadPoolExecutor(8) as workers:
        spec = a_type(*(call(name) for name in names), call("last", stage=2))
        done = list(workers.map(lambda _: b.run(spec), range(200)))
        assert b.executor.pool.threads <= 3
    assert all(isinstance(one, Ended) and one.state == SUCCEEDED for one in done)
    assert len(b.service.requests) == 200 * 7
