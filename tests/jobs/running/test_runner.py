"""A whole runner on the in-memory store, with real threads and a scripted executor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

import pytest

from jobs.execution.interruption import CANCEL, DEADLINE, STOP, Interruption
from jobs.running.runner import Runner
from jobs.running.settling import Settling
from jobs.running.waker import Waker
from jobs.states import CANCELLED, DEAD, QUEUED, RUNNING, SUCCEEDED
from jobs.store.memory import MemoryStore
from jobs.store.protocol import Again, Claimed, Draft, Ended, Write
from jobs.types.catalogue import Catalogue
from jobs.types.spec import TypeSpec
from pipeline.runtime.clock import SystemClock

GENEROUS_S = 60.0
TYPE = TypeSpec(id=1, name="t", max_attempts=3)
Act = Callable[[Claimed, Interruption], Ended | Again | None]


class Scripted:
    """An executor that does as it is told."""

    def __init__(self, act: Act) -> None:
        self.act = act
        self.began = threading.Semaphore(0)
        self.ran: list[tuple[UUID, int]] = []

    def run(
        self, job: Claimed, type: TypeSpec, *, interruption: Interruption, **rest: Any
    ) -> Ended | Again | None:
        self.ran.append((job.id, job.claim))
        self.began.release()
        return self.act(job, interruption)


def succeed(job: Claimed, interruption: Interruption) -> Ended:
    return Ended(id=job.id, claim=job.claim, state=SUCCEEDED, worker="w", result=1)


def until_told(job: Claimed, interruption: Interruption) -> Ended | Again | None:
    """Run until somebody says a word, and answer as executors do."""
    told = threading.Event()
    with interruption.telling(told.set):
        assert told.wait(GENEROUS_S)
    why = interruption.why
    if why == CANCEL:
        return Ended(id=job.id, claim=job.claim, state=CANCELLED, worker="w", reason="asked")
    if why == DEADLINE:
        return Ended(id=job.id, claim=job.claim, state=DEAD, worker="w", reason="deadline")
    if why == STOP:
        return Again(id=job.id, claim=job.claim, worker="w", spent=False)
    return None


class NoWaker(Waker):
    def start(self) -> None:
        """Polling alone must do."""


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(types=lambda: {1: TYPE})


Make = Callable[..., Runner]


@pytest.fixture
def make(store: MemoryStore) -> Iterator[Make]:
    made: list[Runner] = []

    def runner(executor: Any, **options: Any) -> Runner:
        values: dict[str, Any] = {
            "store": store,
            "executor": executor,
            "catalogue": lambda: Catalogue(types={1: TYPE}, by_name={"t": TYPE}),
            "settling": Settling(),
            "clock": SystemClock(),
            "min_workers": 2,
            "max_workers": 4,
            "poll_s": 0.02,
            "lease_s": 3.0,
            "waker": lambda wake: NoWaker(wake=wake),
        }
        made.append(Runner(**{**values, **options}))
        made[-1].start()
        return made[-1]

    yield runner
    for one in made:
        one.stop(finish_s=0.0, write_s=0.5)


def submit(store: MemoryStore, count: int, **fields: Any) -> list[UUID]:
    drafts = [Draft(type_id=1, payload={"n": number}, **fields) for number in range(count)]
    store.submit(drafts)
    return [draft.id for draft in drafts]


def wait_until(true: Callable[[], bool]) -> None:
    due = time.monotonic() + GENEROUS_S
    while not true():
        assert time.monotonic() < due
        threading.Event().wait(0.002)


def states(store: MemoryStore, ids: Sequence[UUID]) -> set[str]:
    return {store.look(job).state for job in ids}


def test_every_job_is_run_once_and_what_came_of_it_is_kept(store: MemoryStore, make: Make) -> None:
    executor = Scripted(succeed)
    ids = submit(store, 200)
    runner = make(executor)
    wait_until(lambda: states(store, ids) == {SUCCEEDED})
    assert sorted(job for job, _ in executor.ran) == sorted(ids)
    wait_until(lambda: runner.figures.succeeded == 200)
    assert store.look(ids[0]).result == 1


def test_by_priority_and_then_by_age(store: MemoryStore, make: Make) -> None:
    low = submit(store, 3, priority=1)
    high = submit(store, 3, priority=9)
    executor = Scripted(succeed)
    make(executor, min_workers=1, max_workers=1)
    wait_until(lambda: states(store, [*low, *high]) == {SUCCEEDED})
    assert [job for job, _ in executor.ran] == [*high, *low]


def test_a_stop_lets_jobs_end(store: MemoryStore, make: Make) -> None:
    may_end = threading.Event()

    def act(job: Claimed, interruption: Interruption) -> Ended:
        assert may_end.wait(GENEROUS_S)
        return succeed(job, interruption)

    executor = Scripted(act)
    runner = make(executor)
    ids = submit(store, 2)
    for _ in ids:
        assert executor.began.acquire(timeout=GENEROUS_S)
    stopped: list[bool] = []
    stopping = threading.Thread(target=lambda: stopped.append(runner.stop(finish_s=GENEROUS_S)))
    stopping.start()
    wait_until(lambda: runner.hands.closed)
    may_end.set()
    stopping.join(GENEROUS_S)
    assert stopped == [True]
    assert states(store, ids) == {SUCCEEDED}
    assert store.runners() == {}


def test_what_does_not_end_in_time_goes_back_at_no_cost(store: MemoryStore, make: Make) -> None:
    executor = Scripted(until_told)
    runner = make(executor, max_workers=2)
    ids = submit(store, 5)
    for _ in range(2):
        assert executor.began.acquire(timeout=GENEROUS_S)
    assert runner.stop(finish_s=0.0) is True
    assert states(store, ids) == {QUEUED}
    assert {store.look(job).attempts for job in ids} == {0}
    again = Scripted(succeed)
    make(again)
    wait_until(lambda: states(store, ids) == {SUCCEEDED})


def test_a_second_word_ends_a_stop_at_once(store: MemoryStore, make: Make) -> None:
    executor = Scripted(until_told)
    runner = make(executor)
    ids = submit(store, 1)
    assert executor.began.acquire(timeout=GENEROUS_S)
    stopping = threading.Thread(target=lambda: runner.stop(finish_s=10**6))
    stopping.start()
    wait_until(lambda: runner.hands.closed)
    runner.hurry()
    stopping.join(GENEROUS_S)
    assert not stopping.is_alive()
    assert states(store, ids) == {QUEUED}


def test_a_running_job_is_cancelled(store: MemoryStore, make: Make) -> None:
    executor = Scripted(until_told)
    make(executor)
    (job,) = submit(store, 1)
    assert executor.began.acquire(timeout=GENEROUS_S)
    assert store.change("cancel", [job], by="somebody")[job].asked
    wait_until(lambda: states(store, [job]) == {CANCELLED})


def test_a_deadline_ends_what_runs(store: MemoryStore, make: Make) -> None:
    executor = Scripted(until_told)
    make(executor)
    (job,) = submit(store, 1, deadline_s=0.3)
    wait_until(lambda: states(store, [job]) == {DEAD})
    assert store.look(job).reason == "deadline"


def test_a_runner_that_fails_spends_an_attempt_and_says_so(store: MemoryStore, make: Make) -> None:
    def act(job: Claimed, interruption: Interruption) -> Ended:
        raise RuntimeError("a mistake of ours")

    type_ = TypeSpec(id=1, name="t", max_attempts=1)
    make(Scripted(act), catalogue=lambda: Catalogue(types={1: type_}))
    (job,) = submit(store, 1)
    wait_until(lambda: states(store, [job]) == {DEAD})
    assert "RuntimeError: a mistake of ours" in store.look(job).error
    assert store.look(job).reason == "attempts"


def test_a_runner_taken_for_dead_is_fenced_off_and_goes_on_under_another_name(
    store: MemoryStore, make: Make
) -> None:
    executor = Scripted(until_told)
    runner = make(executor, max_workers=2, lease_s=1.0)
    (job,) = submit(store, 1)
    assert executor.began.acquire(timeout=GENEROUS_S)
    before = runner.keeper.runner
    beats = store.runners()[before]
    wait_until(lambda: store.runners()[before] > beats)
    while store.rescue(before, beats=store.runners()[before], lost_at={1: 3}) is None:
        pass  # it beat in between
    # Run again: by the same process, which knows that the first run is not its own any more.
    assert executor.began.acquire(timeout=GENEROUS_S)
    assert runner.keeper.runner != before
    assert [claim for _, claim in executor.ran] == [1, 2]
    executor.act = succeed
    assert store.look(job).state == RUNNING
    runner.hands.busy()[0].interruption.interrupt(STOP)
    wait_until(lambda: states(store, [job]) == {SUCCEEDED})
    assert store.look(job).attempts == 2, "a rescue is an attempt, a stop is none"


def test_a_claim_whose_answer_was_lost_is_given_back(store: MemoryStore, make: Make) -> None:
    lost: list[int] = []
    claim = store.claim

    def losing(*args: Any, **options: Any) -> list[Claimed]:
        found = claim(*args, **options)
        if found and not lost:
            lost.append(len(found))
            raise RuntimeError("the answer was lost")
        return found

    store.claim = losing  # type: ignore[method-assign]
    ids = submit(store, 2)
    make(Scripted(succeed))
    wait_until(lambda: states(store, ids) == {SUCCEEDED})
    assert lost
    assert {store.look(job).attempts for job in ids} == {1}


def test_whatever_a_run_lets_out_the_job_is_settled(store: MemoryStore, make: Make) -> None:
    def act(job: Claimed, interruption: Interruption) -> Ended:
        raise GeneratorExit

    type_ = TypeSpec(id=1, name="t", max_attempts=1)
    runner = make(Scripted(act), catalogue=lambda: Catalogue(types={1: type_}))
    (job,) = submit(store, 1)
    wait_until(lambda: states(store, [job]) == {DEAD})
    assert "GeneratorExit" in store.look(job).error
    assert len(runner.pool.staying) == 2, "and its worker goes on"


def test_what_is_in_nobodys_hands_is_given_back(store: MemoryStore, make: Make) -> None:
    """A write that nobody waits for may be refused for good: the job is not held for ever."""
    write = store.write
    spoilt: list[UUID] = []

    def refusing(writes: Sequence[Write]) -> list[bool]:
        if any(isinstance(one, Ended) and one.reason == "asked" for one in writes):
            spoilt.extend(one.id for one in writes)
            raise ValueError("cannot be stored")
        return write(writes)

    store.write = refusing  # type: ignore[method-assign]
    executor = Scripted(until_told)
    runner = make(executor, min_workers=1, max_workers=1, lease_s=1.0)
    (first,) = submit(store, 1)
    assert executor.began.acquire(timeout=GENEROUS_S)
    runner.hands._took_s = 0.0  # quick jobs are claimed ahead
    (second,) = submit(store, 1)
    wait_until(lambda: runner.hands.waiting == 1)
    store.change("cancel", [second], by="somebody")
    wait_until(lambda: bool(spoilt))
    wait_until(lambda: states(store, [second]) == {CANCELLED})
    assert store.look(first).state == RUNNING


def test_types_with_limits_are_run_as_fast_as_those_allow(make: Make) -> None:
    alone = TypeSpec(id=1, name="t", max_concurrent=1)
    store = MemoryStore(types=lambda: {1: alone})
    # Polled for once in ten minutes: it must not take a poll to begin the next.
    executor = Scripted(succeed)
    ids = submit(store, 30)
    make(executor, store=store, catalogue=lambda: Catalogue(types={1: alone}), poll_s=600.0)
    wait_until(lambda: states(store, ids) == {SUCCEEDED})


def test_what_comes_while_there_is_no_room_is_remembered(store: MemoryStore, make: Make) -> None:
    may_end = threading.Event()

    def act(job: Claimed, interruption: Interruption) -> Ended:
        assert may_end.wait(GENEROUS_S)
        return succeed(job, interruption)

    executor = Scripted(act)
    runner = make(executor, min_workers=1, max_workers=1, poll_s=600.0)
    runner.hands._took_s = 0.001  # jobs were quick: some are claimed ahead
    ids = submit(store, 2)
    runner.claimer.nudge()
    assert executor.began.acquire(timeout=GENEROUS_S)
    wait_until(lambda: runner.hands.waiting == 1 or states(store, ids[1:]) == {QUEUED})
    wait_until(lambda: not runner.claimer.more)
    runner.hands._took_s = 10.0  # and are slow now: there is room for one
    ids += submit(store, 1)
    runner.claimer.nudge()
    wait_until(lambda: not runner.claimer._rounds._called)
    may_end.set()
    wait_until(lambda: states(store, ids) == {SUCCEEDED})


def test_what_was_claimed_ahead_does_not_wait_behind_a_slow_job(
    store: MemoryStore, make: Make
) -> None:
    executor = Scripted(until_told)
    runner = make(executor, min_workers=1, max_workers=1)
    runner.hands._took_s = 0.001
    ids = submit(store, 4)
    assert executor.began.acquire(timeout=GENEROUS_S)
    wait_until(lambda: runner.hands.waiting == 0)
    wait_until(lambda: len([job for job in ids if store.look(job).state == QUEUED]) == 3)
    assert {store.look(job).attempts for job in ids} == {0}
    other = Scripted(succeed)
    make(other, min_workers=1, max_workers=1)
    wait_until(lambda: len([job for job in ids if store.look(job).state == SUCCEEDED]) == 3)


def test_a_worker_that_waits_for_the_database_does_not_hang(
    store: MemoryStore, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.running.endings.HUNG_S", 0.0)
    away = threading.Event()
    write = store.write

    def silent(writes: Sequence[Write]) -> list[bool]:
        if any(isinstance(one, Ended) for one in writes):
            assert away.wait(GENEROUS_S)
        return write(writes)

    store.write = silent  # type: ignore[method-assign]
    runner = make(Scripted(succeed))
    (job,) = submit(store, 1, deadline_s=0.2)
    wait_until(lambda: bool(runner.hands.busy()) and runner.hands.busy()[0].settling)
    due = runner.hands.busy()[0].deadline_at()
    assert due is not None
    wait_until(lambda: time.monotonic() > due)
    for _ in range(3):
        runner.endings.look()
    away.set()
    wait_until(lambda: states(store, [job]) == {SUCCEEDED})
    wait_until(lambda: runner.figures.succeeded == 1)
    assert (runner.figures.dead, runner.figures.hung, runner.pool.hung) == (0, 0, [])


def test_steps_that_never_end_cost_their_workers_and_at_last_the_runner(
    store: MemoryStore, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.running.endings.HUNG_S", 0.0)
    monkeypatch.setattr("jobs.running.endings.MAX_HUNG", 2)
    may_end = threading.Event()

    def act(job: Claimed, interruption: Interruption) -> Ended:
        assert may_end.wait(GENEROUS_S)  # whatever it is told
        return succeed(job, interruption)

    executor = Scripted(act)
    runner = make(executor, min_workers=1, max_workers=4)
    ids = submit(store, 2, deadline_s=0.2)
    for _ in ids:
        assert executor.began.acquire(timeout=GENEROUS_S)
    wait_until(lambda: states(store, ids) == {DEAD})
    assert {store.look(job).reason for job in ids} == {"deadline"}
    wait_until(lambda: runner.stuck)
    assert runner.unready() is not None
    (waits,) = submit(store, 1)
    runner.claimer.nudge()
    assert not executor.began.acquire(timeout=0.5), "it takes no more"
    assert store.look(waits).state == QUEUED
    may_end.set()
    # They came back: it can work again, and what they say now is not heard.
    wait_until(lambda: states(store, [waits]) == {SUCCEEDED})
    assert states(store, ids) == {DEAD}
    wait_until(lambda: runner.figures.lost == 2)
    assert runner.figures.refused == 0


def test_a_cancellation_of_an_older_claim_is_not_meant_for_this_one(
    store: MemoryStore, make: Make
) -> None:
    executor = Scripted(until_told)
    runner = make(executor)
    (job,) = submit(store, 1)
    assert executor.began.acquire(timeout=GENEROUS_S)
    (run,) = runner.hands.busy()
    runner.endings.cancel([(job, run.job.claim - 1)])
    assert run.interruption.why == ""
    runner.endings.cancel([(job, run.job.claim)])
    wait_until(lambda: states(store, [job]) == {CANCELLED})


def test_what_is_claimed_and_not_begun_is_cancelled_at_once(store: MemoryStore, make: Make) -> None:
    executor = Scripted(until_told)
    runner = make(executor, min_workers=1, max_workers=1)
    runner.hands._took_s = 0.001
    first, second = submit(store, 2)
    assert executor.began.acquire(timeout=GENEROUS_S)
    found = runner.hands.find(second)
    if found is not None:  # else it was given back, and waits
        runner.endings.cancel([(second, found.job.claim)])
        wait_until(lambda: states(store, [second]) == {CANCELLED})
        assert store.look(second).attempts == 0
    assert store.look(first).state == RUNNING


def test_how_long_it_ran_is_kept(store: MemoryStore, make: Make) -> None:
    written: list[Write] = []
    write = store.write

    def seen(writes: Sequence[Write]) -> list[bool]:
        written.extend(writes)
        return write(writes)

    store.write = seen  # type: ignore[method-assign]
    make(Scripted(succeed))
    (job,) = submit(store, 1)
    wait_until(lambda: states(store, [job]) == {SUCCEEDED})
    assert [one.ran_s > 0 for one in written if isinstance(one, Ended)] == [True]


def test_an_outcome_that_cannot_be_written_does_not_hold_the_job_for_ever(
    store: MemoryStore, make: Make
) -> None:
    write = store.write

    def refusing(writes: Sequence[Write]) -> list[bool]:
        if any(isinstance(one, Ended) and one.result == 1 for one in writes):
            raise ValueError("cannot be stored")
        return write(writes)

    store.write = refusing  # type: ignore[method-assign]
    make(Scripted(succeed))
    (job,) = submit(store, 1)
    wait_until(lambda: states(store, [job]) == {DEAD})
    assert "cannot be written" in store.look(job).error


def test_webhooks_go_with_the_end(store: MemoryStore, make: Make) -> None:
    settling = Settling(compose=lambda job, spec, ended: {"dedupe_key": f"{job.id}:{ended.state}"})
    make(Scripted(succeed), settling=settling)
    (with_one,) = submit(store, 1, webhook_url="https://example.org/done")
    (without,) = submit(store, 1)
    wait_until(lambda: states(store, [with_one, without]) == {SUCCEEDED})
    assert [one["dedupe_key"] for one in store.webhooks] == [f"{with_one}:succeeded"]
