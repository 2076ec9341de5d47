"""The heart: what is due, what fails, what a lost database costs; with an injected clock."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator

import pytest
from django.db import InterfaceError, OperationalError, ProgrammingError

from control.processes.heart import NOT_ASKED, RETRY_S, WATCH_INTERVAL_S, Heart
from pipeline.runtime.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def heart(clock: FakeClock) -> Iterator[Heart]:
    heart = Heart(clock=clock)
    yield heart
    assert heart.stop(30)


class Task:
    """Counts its runs; raises what it is told to."""

    def __init__(self) -> None:
        self.runs = 0
        self.error: Exception | None = None
        self.ran = threading.Event()

    def __call__(self) -> None:
        self.runs += 1
        self.ran.set()
        if self.error is not None:
            raise self.error


def test_tasks_run_at_start_and_then_by_their_interval(heart: Heart, clock: FakeClock) -> None:
    often, seldom = Task(), Task()
    heart.every("often", 2.0, often, database=False)
    heart.every("seldom", 60.0, seldom, database=False)
    assert heart.beat() == pytest.approx(2.0)
    clock.advance(1.0)
    heart.beat()
    assert (often.runs, seldom.runs) == (1, 1)
    clock.advance(1.0)
    heart.beat()
    assert (often.runs, seldom.runs) == (2, 1)


def test_a_failure_is_told_once_and_its_end_once(
    heart: Heart, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    task, other = Task(), Task()
    heart.every("task", 1.0, task, database=False)
    heart.every("other", 1.0, other, database=False)
    task.error = RuntimeError("broken")
    with caplog.at_level(logging.INFO, logger="control.processes.heart"):
        for _ in range(3):
            heart.beat()
            clock.advance(1.0)
        task.error = None
        for _ in range(2):
            heart.beat()
            clock.advance(1.0)
    assert other.runs == 5
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


@pytest.mark.parametrize("error", [OperationalError("gone"), InterfaceError("closed")])
def test_a_lost_database_is_asked_once_a_beat(
    heart: Heart, clock: FakeClock, error: Exception
) -> None:
    first, second, elsewhere, local = Task(), Task(), Task(), Task()
    first.error = error
    heart.every("first", 5.0, first)
    heart.every("second", 5.0, second)
    heart.every("elsewhere", 5.0, elsewhere, alias="records")
    heart.every("local", 5.0, local, database=False)
    heart.beat()
    assert (first.runs, second.runs, elsewhere.runs, local.runs) == (1, 0, 1, 1)
    # Soon again, not after the whole interval.
    clock.advance(RETRY_S)
    first.error = None
    heart.beat()
    assert (first.runs, second.runs, elsewhere.runs, local.runs) == (2, 1, 1, 1)


def test_another_database_error_does_not_stop_the_rest(heart: Heart) -> None:
    first, second = Task(), Task()
    first.error = ProgrammingError("no such table")
    heart.every("first", 5.0, first)
    heart.every("second", 5.0, second)
    heart.beat()
    assert second.runs == 1
    assert heart.database_cause("default") is None


def test_readiness_tells_a_database_that_stays_away(heart: Heart, clock: FakeClock) -> None:
    task = Task()
    heart.every("task", 1.0, task)
    task.error = OperationalError("connection to server at 10.0.0.7, user hidden, failed")
    heart.beat()
    assert heart.database_cause("default") is None
    for _ in range(3):
        clock.advance(RETRY_S)
        heart.beat()
    cause = heart.database_cause("default")
    assert cause == "the database 'default' has not answered for 6 s: OperationalError"
    assert heart.database_cause("records") is None
    task.error = None
    clock.advance(RETRY_S)
    heart.beat()
    assert heart.database_cause("default") is None


def test_a_watch_applies_changes_only(heart: Heart, clock: FakeClock) -> None:
    fingerprints = iter(["a", "a", "b", "b"])
    applied = Task()
    heart.watch("rows", lambda: next(fingerprints), applied, seen="a")
    runs = []
    for _ in range(4):
        heart.beat()
        runs.append(applied.runs)
        clock.advance(WATCH_INTERVAL_S)
    assert runs == [0, 0, 1, 1]


def test_an_apply_that_failed_is_repeated(heart: Heart, clock: FakeClock) -> None:
    applied = Task()
    heart.watch("rows", lambda: "new", applied)
    applied.error = RuntimeError("bad row")
    heart.beat()
    clock.advance(WATCH_INTERVAL_S)
    applied.error = None
    heart.beat()
    clock.advance(WATCH_INTERVAL_S)
    heart.beat()
    assert applied.runs == 2


def test_watching_is_quick_enough_for_a_revoked_key() -> None:
    assert WATCH_INTERVAL_S < 2.0


def test_the_thread_waits_by_the_clock(heart: Heart, clock: FakeClock) -> None:
    task = Task()
    heart.every("task", 5.0, task, database=False)
    heart.start()
    assert task.ran.wait(180)
    task.ran.clear()
    # The clock may be moved before the thread waits by it: then it sees that the time has come.
    clock.advance(5.0)
    assert task.ran.wait(180)
    assert task.runs == 2


def test_a_nudge_makes_a_task_due_at_once(heart: Heart) -> None:
    task, other = Task(), Task()
    heart.every("task", 3600.0, task, database=False)
    heart.every("other", 3600.0, other, database=False)
    heart.start()
    assert task.ran.wait(180)
    assert other.ran.wait(180)
    task.ran.clear()
    heart.nudge("task")
    assert task.ran.wait(180)
    assert other.runs == 1


@pytest.mark.concurrency
def test_start_and_stop_from_many_threads(clock: FakeClock) -> None:
    heart = Heart(clock=clock)
    running = []
    heart.every("who", 1.0, lambda: running.append(threading.current_thread()), database=False)
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait(180)
        for _ in range(20):
            (heart.start if number % 2 else lambda: heart.stop(30))()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    assert heart.stop(30)
    assert not [thread for thread in set(running) if thread.is_alive()]
    heart.start()
    assert heart.stop(30)


def test_a_stop_does_not_wait_for_a_hung_task(clock: FakeClock) -> None:
    heart = Heart(clock=clock)
    inside, go = threading.Event(), threading.Event()

    def hang() -> None:
        inside.set()
        go.wait(60)

    heart.every("hang", 1.0, hang, database=False)
    heart.start()
    assert inside.wait(180)
    assert heart.stop(0.01) is False
    go.set()
    assert heart.stop(30) is True


def test_a_forked_child_has_no_thread_of_its_parents(heart: Heart, clock: FakeClock) -> None:
    heart.every("task", 1.0, Task(), database=False)
    heart.start()
    child = Heart(clock=clock)
    child.__dict__.update(heart.__dict__)
    child.after_fork()
    assert child._thread is None
    assert os.getpid()


def test_a_task_that_asked_nothing_does_not_call_a_lost_database_well(
    heart: Heart, clock: FakeClock
) -> None:
    task = Task()
    task.error = OperationalError("away")
    heart.every("idle", 0.5, lambda: NOT_ASKED)
    heart.every("task", 1.0, task)
    for _ in range(4):
        heart.beat()
        clock.advance(RETRY_S)
    heart.every("later", 0.5, lambda: NOT_ASKED)
    heart.beat()
    assert heart.database_cause("default") is not None
