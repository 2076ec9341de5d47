"""The thread of upkeep: each task when it is due, whatever becomes of the others."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest
from django.db import OperationalError

from jobs.store.memory import MemoryStore
from jobs.upkeep.folding import MANY, Folding, NobodyElse
from jobs.upkeep.rounds import LONGEST_WAIT_S, Rounds, Task
from jobs.upkeep.service import UpkeepService, runner_tasks, runs_jobs, server_tasks
from pipeline.runtime.clock import FakeClock

WAIT_S = 60


class Counted:
    """A task that says how often it ran."""

    def __init__(self, name: str = "one", interval_s: float = 10.0) -> None:
        self.runs = 0
        self.answer: float | None = None
        self.error: Exception | None = None
        self.task = Task(name=name, interval_s=interval_s, run=self)

    def __call__(self) -> float | None:
        self.runs += 1
        if self.error is not None:
            raise self.error
        return self.answer


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def rounds_of(clock: FakeClock, *counted: Counted) -> Rounds:
    return Rounds(
        tasks=[one.task for one in counted], clock=clock, jitter=lambda: 0.5, retire=lambda: None
    )


def test_each_task_runs_when_it_is_due(clock):
    often, seldom = Counted("often", 1.0), Counted("seldom", 3.0)
    rounds = rounds_of(clock, often, seldom)
    for _ in range(4):
        assert rounds.beat() == 1.0
        clock.advance(1.0)
    assert (often.runs, seldom.runs) == (4, 2)


def test_nobody_waits_for_longer_than_a_while(clock):
    assert rounds_of(clock, Counted(interval_s=600)).beat() == LONGEST_WAIT_S


def test_a_task_may_ask_to_come_again_sooner(clock):
    one = Counted(interval_s=60)
    one.answer = 0.25
    rounds = rounds_of(clock, one)
    assert rounds.beat() == 0.25
    clock.advance(0.25)
    rounds.beat()
    assert one.runs == 2


def test_processes_that_began_together_part_ways(clock):
    waits = []
    for share in (0.0, 0.999):
        task, jitter = Counted(interval_s=2.0).task, iter([share])
        waits.append(Rounds(tasks=[task], clock=clock, jitter=jitter.__next__).beat())
    assert waits[0] < 2.0 < waits[1]


def test_a_task_that_fails_is_told_once_and_costs_the_others_nothing(clock, caplog):
    caplog.set_level(logging.INFO, logger="jobs.upkeep.rounds")
    bad, good = Counted("bad", 1.0), Counted("good", 1.0)
    bad.error = ValueError("broken")
    rounds = rounds_of(clock, bad, good)
    for _ in range(3):
        rounds.beat()
        clock.advance(1.0)
    assert (bad.runs, good.runs) == (3, 3)
    assert rounds.failing == {"bad": "ValueError: broken"}
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    bad.error = None
    rounds.beat()
    assert rounds.failing == {}
    assert caplog.records[-1].message == "upkeep works again"


def test_a_database_that_is_away_is_a_warning(clock, caplog):
    bad = Counted()
    bad.error = OperationalError("connection refused")
    rounds_of(clock, bad).beat()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.exc_info is None


def test_the_thread_ends_and_gives_its_connections_back():
    ran, retired = threading.Event(), threading.Event()
    task = Task(name="one", interval_s=60, run=ran.set)
    rounds = Rounds(tasks=[task], retire=retired.set)
    assert rounds.stop(1.0)
    rounds.start()
    rounds.start()
    assert ran.wait(WAIT_S)
    assert rounds.stop(WAIT_S)
    assert rounds.stop(WAIT_S)
    assert retired.is_set()


def test_a_stop_does_not_wait_for_ever_and_nothing_more_is_begun():
    entered, leave = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        leave.wait(WAIT_S)

    after = Counted("after")
    rounds = Rounds(tasks=[Task(name="hung", interval_s=1, run=hang), after.task])
    rounds.start()
    thread = rounds._thread
    assert thread is not None
    assert entered.wait(WAIT_S)
    assert rounds.stop(0.0) is False
    leave.set()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert after.runs == 0


# --- who folds -----------------------------------------------------------------------------------


def folding(folded: int) -> Folding:
    class Folds(MemoryStore):
        def fold(self) -> int:
            return folded

    return Folding(store=Folds())


def test_there_is_more_to_fold_where_much_was():
    assert folding(MANY).run() == 0.0
    assert folding(MANY - 1).run() is None


def test_a_server_does_it_only_while_no_runner_beats(clock):
    store, done = MemoryStore(clock=clock), Counted()
    nobody = NobodyElse(store=store, run=done)
    nobody.run()
    assert done.runs == 0  # who has just begun to look cannot know
    nobody.run()
    assert done.runs == 1
    store.join("r1", host="h", pid=1)
    nobody.run()
    assert done.runs == 1
    store.beat("r1", {})
    nobody.run()
    assert done.runs == 1
    nobody.run()  # it has not beaten since
    assert done.runs == 2


# --- the service ---------------------------------------------------------------------------------


def test_who_does_what(settings, monkeypatch):
    def names(tasks: Callable[[MemoryStore], tuple[Task, ...]]) -> list[str]:
        return [task.name for task in tasks(MemoryStore())]

    assert names(runner_tasks) == ["fold", "schedules", "retention", "overdue"]
    assert names(server_tasks) == ["fold", "retention", "overdue"]
    assert runs_jobs("jobs")
    assert not runs_jobs("server")
    assert not runs_jobs("checker")


@pytest.mark.parametrize("role", ["checker", "consumer", "command", "test"])
def test_nothing_is_kept_up_in_other_processes(role: str):
    service = UpkeepService()
    service.start(role)
    assert service._rounds is None
    service.stop(1.0)
