"""The desk: many requests share a transaction, nobody waits for long, nothing done is forgotten."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
from django.db import DataError, OperationalError

from control.idempotency.claims import Claim, Mismatch, Outcome, Pending, Replay
from control.idempotency.desk import RETRY_S, Desk
from control.idempotency.jobs import Busy, Unavailable
from control.idempotency.models import DONE, PENDING, IdempotencyKey
from control.idempotency.store import Round
from pipeline.runtime.clock import FakeClock
from tests.idempotency.claims import wanted

MakeDesk = Callable[..., Desk]
LONG_S = 60.0


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work` gives or raises on so many threads that begin at once."""
    results: list[Any] = [None] * count
    gate = threading.Barrier(count)

    def run(place: int) -> None:
        gate.wait(LONG_S)
        try:
            results[place] = work(place)
        except Exception as error:
            results[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    return results


# --- with a database -------------------------------------------------------------------------


@pytest.mark.concurrency
def test_of_many_with_one_key_one_gets_it(make_desk: MakeDesk) -> None:
    """Two desks stand for two processes: only the database is between them."""
    desks = [make_desk(), make_desk()]
    outcomes = together(40, lambda n: desks[n % 2].claim(wanted("one")))
    (claim,) = [one for one in outcomes if isinstance(one, Claim)]
    assert outcomes.count(Pending()) == 39
    desks[0].finish(claim)
    again = together(10, lambda n: desks[n % 2].claim(wanted("one")))
    assert {type(one) for one in again} == {Replay}


@pytest.mark.concurrency
def test_two_processes_with_the_same_keys_do_not_deadlock(make_desk: MakeDesk) -> None:
    desks = [make_desk(), make_desk()]
    keys = [f"key-{n}" for n in range(30)]
    outcomes = together(
        60, lambda n: desks[n % 2].claim(wanted(keys[n // 2 if n % 2 else 29 - n // 2]))
    )
    assert sorted(type(one).__name__ for one in outcomes) == ["Claim"] * 30 + ["Pending"] * 30
    assert IdempotencyKey.objects.filter(state=PENDING).count() == 30


def test_what_is_recorded_is_told(make_desk: MakeDesk) -> None:
    desk, told = make_desk(), threading.Event()
    claim = desk.claim(wanted())
    assert isinstance(claim, Claim)
    assert desk.active() == {claim.id}
    desk.finish(claim, response="as it was", on_recorded=told.set)
    assert told.wait(LONG_S)
    assert desk.active() == set()
    row = IdempotencyKey.objects.get()
    assert (row.state, row.response) == (DONE, "as it was")
    assert isinstance(desk.claim(wanted(digest="e" * 64)), Mismatch)


def test_what_is_given_back_is_free(make_desk: MakeDesk) -> None:
    desk = make_desk()
    claim = desk.claim(wanted())
    assert isinstance(claim, Claim)
    desk.release(claim)
    assert isinstance(desk.claim(wanted()), Claim)


def test_a_stopped_desk_takes_nothing_and_has_recorded_what_it_had(make_desk: MakeDesk) -> None:
    desk = make_desk()
    claim = desk.claim(wanted())
    assert isinstance(claim, Claim)
    desk.finish(claim)
    assert desk.stop(LONG_S)
    assert desk.stop(LONG_S)
    with pytest.raises(Unavailable):
        desk.claim(wanted("other"))
    assert IdempotencyKey.objects.get().state == DONE


# --- without one -----------------------------------------------------------------------------


class Rounds:
    """A database that fails or hangs when it is told to."""

    def __init__(self) -> None:
        self.rounds: list[Round] = []
        self.errors: list[Exception] = []
        self.failing: Callable[[Round], Exception | None] = lambda _: None
        self.began = threading.Semaphore(0)
        self.cuts = 0
        self._free = threading.Event()
        self._free.set()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def run(self, round: Round, now: datetime) -> list[Outcome]:
        self.began.release()
        self._free.wait(LONG_S)
        error = self.failing(round)
        if error is not None:
            raise error
        self.rounds.append(round)
        return [Claim(id=one.id, missing=one.parts) for one in round.wanted]

    def close(self) -> None:
        pass

    def cut(self) -> None:
        self.cuts += 1
        self.failing = lambda _: OperationalError("cut")
        self._free.set()


@pytest.fixture
def rounds() -> Rounds:
    return Rounds()


@pytest.fixture
def desk(rounds: Rounds) -> Iterator[tuple[Desk, FakeClock]]:
    clock = FakeClock()
    made = Desk(store=rounds, wait_s=2.0, limit=3, clock=clock)
    made.start()
    yield made, clock
    rounds.failing = lambda _: None
    made.stop(LONG_S)


def released(rounds: Rounds) -> list[Any]:
    return [claim_id for round in rounds.rounds for claim_id, _ in round.released]


def finished(rounds: Rounds) -> list[Any]:
    return [claim_id for round in rounds.rounds for claim_id, _ in round.finished]


def until(true: Callable[[], bool], clock: FakeClock, step_s: float = RETRY_S) -> None:
    """Let the desk's time pass until it has done something."""
    for _ in range(10_000):
        if true():
            return
        clock.advance(step_s)
        threading.Event().wait(0.001)  # the desk's thread needs the processor
    raise AssertionError("it did not come to pass")


def test_a_failing_database_costs_one_request_its_wait_and_the_others_nothing(
    desk: tuple[Desk, FakeClock], rounds: Rounds
) -> None:
    one, clock = desk
    rounds.failing = lambda _: OperationalError("away")
    first = wanted()
    with pytest.raises(Unavailable):
        one.claim(first)
    assert not one.available
    for _ in range(1000):
        with pytest.raises(Unavailable):
            one.claim(wanted())
    rounds.failing = lambda _: None
    until(lambda: one.available, clock)
    # Its insert may have been committed without anybody hearing of it.
    assert released(rounds) == [first.id]
    assert isinstance(one.claim(wanted("other")), Claim)


def test_a_hanging_database_keeps_a_bounded_number_of_requests_for_a_bounded_time(
    desk: tuple[Desk, FakeClock], rounds: Rounds
) -> None:
    one, clock = desk
    ones = [wanted(str(n)) for n in range(3)]
    results: list[Any] = []

    def ask(n: int) -> None:
        try:
            results.append(one.claim(ones[n]))
        except Exception as error:
            results.append(error)

    with rounds.hanging():
        threads = [threading.Thread(target=ask, args=(n,)) for n in range(3)]
        threads[0].start()
        assert rounds.began.acquire(timeout=LONG_S)
        for thread in threads[1:]:
            thread.start()
        clock.await_waiting(3)
        with pytest.raises(Busy):
            one.claim(wanted("one too many"))
        clock.advance(2.0)
        for thread in threads:
            thread.join(LONG_S)
        assert [type(result) for result in results] == [Unavailable] * 3
        with pytest.raises(Unavailable):
            one.claim(wanted("at once"))
        # Whoever gave up waiting has cut the connection.
        assert rounds.cuts
    rounds.failing = lambda _: None
    until(lambda: one.available, clock)
    assert ones[0].id in released(rounds)
    assert one.waiting == 0


def test_a_claim_that_comes_too_late_is_given_back(
    desk: tuple[Desk, FakeClock], rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, clock = desk
    late = wanted()
    monkeypatch.setattr(rounds, "cut", lambda: None)  # SQLite has no socket to cut

    def ask() -> None:
        with pytest.raises(Unavailable):
            one.claim(late)

    with rounds.hanging():
        thread = threading.Thread(target=ask)
        thread.start()
        assert rounds.began.acquire(timeout=LONG_S)
        clock.await_waiting(1)
        clock.advance(2.0)
        thread.join(LONG_S)
    until(lambda: released(rounds) == [late.id], clock)
    assert one.active() == set()


def test_what_is_done_is_recorded_once_the_database_is_back(
    desk: tuple[Desk, FakeClock], rounds: Rounds
) -> None:
    one, clock = desk
    claim = one.claim(wanted())
    assert isinstance(claim, Claim)
    told = threading.Event()
    rounds.failing = lambda _: OperationalError("away")
    one.finish(claim, on_recorded=told.set)  # returns: the request has its answer
    assert one.active() == {claim.id}
    assert not told.is_set()
    rounds.failing = lambda _: None
    until(told.is_set, clock)
    assert finished(rounds) == [claim.id]


def test_a_stop_tries_once_more_to_record_what_is_done(rounds: Rounds) -> None:
    one = Desk(store=rounds, wait_s=60.0, limit=3, clock=FakeClock())
    one.start()
    claim = one.claim(wanted())
    assert isinstance(claim, Claim)
    rounds.failing = lambda _: OperationalError("away")
    one.finish(claim)
    rounds.failing = lambda _: None
    assert one.stop(LONG_S)
    assert finished(rounds) == [claim.id]


def test_a_stop_without_a_database_ends_and_says_that_something_is_left(rounds: Rounds) -> None:
    one = Desk(store=rounds, wait_s=60.0, limit=3, clock=FakeClock())
    one.start()
    claim = one.claim(wanted())
    assert isinstance(claim, Claim)
    rounds.failing = lambda _: OperationalError("away")
    one.finish(claim)
    assert not one.stop(LONG_S)


def test_one_claim_that_the_database_refuses_does_not_cost_its_neighbours_theirs(
    desk: tuple[Desk, FakeClock], rounds: Rounds
) -> None:
    one, _ = desk
    bad = wanted("bad")
    rounds.failing = lambda round: DataError("no") if bad in round.wanted else None
    ones = [bad, wanted("good"), wanted("better")]
    results: dict[int, Any] = {}

    def ask(n: int) -> None:
        try:
            results[n] = one.claim(ones[n])
        except Exception as error:
            results[n] = error

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(3)]
    with rounds.hanging():
        threads[0].start()
        assert rounds.began.acquire(timeout=LONG_S)
        for thread in threads[1:]:
            thread.start()
    for thread in threads:
        thread.join(LONG_S)
    assert isinstance(results[0], Unavailable)
    assert isinstance(results[1], Claim)
    assert isinstance(results[2], Claim)
    assert one.available
