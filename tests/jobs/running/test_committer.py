"""The committer: groups, joined writes, a database that goes away, a write that it refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from uuid import UUID

import pytest
from django.db import DataError, OperationalError

from jobs.running.committer import Committer
from jobs.store.protocol import Ended, StepRecord, Write
from pipeline.runtime.clock import SystemClock

ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))


def ended(job: UUID, *steps: StepRecord, claim: int = 1) -> Ended:
    return Ended(id=job, claim=claim, state="succeeded", worker="w", steps=steps)


class Keeps:
    """A store of which only `write` is asked; `answers` come before it works."""

    def __init__(self) -> None:
        self.groups: list[list[Write]] = []
        self.refuses: set[UUID] = set()
        self.spoils: set[UUID] = set()
        self.away = 0
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def write(self, writes: Sequence[Write]) -> list[bool]:
        self.entered.release()
        assert self.gate.wait(30)
        if self.away:
            self.away -= 1
            raise OperationalError("the server closed the connection")
        if self.spoils & {write.id for write in writes}:
            raise DataError("such a number cannot be stored")
        self.groups.append(list(writes))
        return [write.id not in self.refuses for write in writes]


@pytest.fixture
def keeps() -> Keeps:
    return Keeps()


@pytest.fixture
def committer(keeps: Keeps) -> Iterator[Committer]:
    made = Committer(store=keeps, clock=SystemClock(), retire=lambda: None)  # type: ignore[arg-type]
    made.start()
    yield made
    keeps.gate.set()
    made.stop(10)


def in_threads(*calls: object) -> list[threading.Thread]:
    threads = [threading.Thread(target=call) for call in calls]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    return threads


def test_a_write_is_waited_for_and_its_answer_is_its_own(
    keeps: Keeps, committer: Committer
) -> None:
    keeps.refuses = {TWO}
    assert committer.hand_in(ended(ONE)) is True
    assert committer.hand_in(ended(TWO)) is False


def test_what_gathers_during_a_commit_goes_in_one(keeps: Keeps, committer: Committer) -> None:
    keeps.refuses = {THREE}
    keeps.gate.clear()
    answers: dict[UUID, bool] = {}
    first = in_threads(lambda: answers.update({ONE: committer.hand_in(ended(ONE))}))
    assert keeps.entered.acquire(timeout=30)
    others = in_threads(
        lambda: answers.update({TWO: committer.hand_in(ended(TWO))}),
        lambda: answers.update({THREE: committer.hand_in(ended(THREE))}),
    )
    while len(committer._queue) < 3:
        threading.Event().wait(0.001)
    assert answers == {}, "nobody is told before the commit"
    keeps.gate.set()
    for thread in (*first, *others):
        thread.join(30)
    assert answers == {ONE: True, TWO: True, THREE: False}
    assert sorted(len(group) for group in keeps.groups) == [1, 2]


def test_a_database_that_is_away_is_tried_until_it_answers(
    keeps: Keeps, committer: Committer
) -> None:
    keeps.away = 3
    assert committer.hand_in(ended(ONE)) is True
    assert len(keeps.groups) == 1
    assert committer.failing == ""


def test_one_write_that_cannot_be_made_costs_no_other(keeps: Keeps, committer: Committer) -> None:
    keeps.spoils = {TWO}
    keeps.gate.clear()
    answers: dict[UUID, object] = {}

    def hand_in(job: UUID) -> None:
        try:
            answers[job] = committer.hand_in(ended(job))
        except DataError as error:
            answers[job] = str(error)

    first = in_threads(lambda: hand_in(ONE))
    assert keeps.entered.acquire(timeout=30)
    others = in_threads(lambda: hand_in(TWO), lambda: hand_in(THREE))
    while len(committer._queue) < 3:
        threading.Event().wait(0.001)
    keeps.gate.set()
    for thread in (*first, *others):
        thread.join(30)
    assert answers == {ONE: True, TWO: "such a number cannot be stored", THREE: True}


def test_a_stop_writes_what_was_handed_in(keeps: Keeps, committer: Committer) -> None:
    keeps.gate.clear()
    assert committer.hand_in(ended(ONE), wait=False)
    assert keeps.entered.acquire(timeout=30)
    assert committer.hand_in(ended(TWO), wait=False)
    keeps.gate.set()
    assert committer.stop(30) is True
    assert [write.id for group in keeps.groups for write in group] == [ONE, TWO]
    assert committer.hand_in(ended(THREE)) is False, "after the end nothing is kept"


def test_a_stop_with_a_lost_database_ends_and_says_so(keeps: Keeps, committer: Committer) -> None:
    keeps.away = 10**9
    answers: list[bool] = []
    (waiting,) = in_threads(lambda: answers.append(committer.hand_in(ended(ONE))))
    assert keeps.entered.acquire(timeout=30)
    assert committer.stop(0.05) is False
    waiting.join(30)
    assert answers == [False]


def test_a_loss_in_the_midst_of_single_writes_is_tried_again(
    keeps: Keeps, committer: Committer
) -> None:
    """A group that is refused is written one by one, and then the database goes away."""
    keeps.spoils = {ONE}
    keeps.gate.clear()
    answers: dict[UUID, object] = {}

    def hand_in(job: UUID) -> None:
        try:
            answers[job] = committer.hand_in(ended(job))
        except DataError:
            answers[job] = "refused"

    threads = in_threads(lambda: hand_in(THREE))
    assert keeps.entered.acquire(timeout=30)
    threads += in_threads(lambda: hand_in(ONE))
    while len(committer._queue) < 2:
        threading.Event().wait(0.001)
    threads += in_threads(lambda: hand_in(TWO))
    while len(committer._queue) < 3:
        threading.Event().wait(0.001)
    write = keeps.write
    singles: list[UUID] = []

    def losing(writes: Sequence[Write]) -> list[bool]:
        if len(writes) == 1 and writes[0].id == TWO and not singles:
            singles.append(TWO)
            raise OperationalError("the server closed the connection")
        return write(writes)

    keeps.write = losing  # type: ignore[method-assign]
    keeps.gate.set()
    for thread in threads:
        thread.join(30)
    assert answers == {ONE: "refused", TWO: True, THREE: True}
    assert singles == [TWO]


def test_who_does_not_wait_is_told_later(keeps: Keeps, committer: Committer) -> None:
    keeps.refuses = {TWO}
    told: dict[UUID, bool] = {}

    def teller(job: UUID) -> Callable[[bool], None]:
        return lambda kept: told.update({job: kept})

    for job in (ONE, TWO):
        assert committer.hand_in(ended(job), wait=False, then=teller(job))
    assert committer.jobs() <= {ONE, TWO}
    assert committer.stop(30)
    assert told == {ONE: True, TWO: False}
    assert committer.jobs() == set()
