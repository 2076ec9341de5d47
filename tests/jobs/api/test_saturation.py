"""Room for jobs: between two marks, from counts that are read now and then."""

from __future__ import annotations

import threading

import pytest

from jobs.api.saturation import MAX_WAIT_S, UNKNOWN_WAIT_S, Full, Saturation
from jobs.states import DEAD, QUEUED, RUNNING, SCHEDULED, SUCCEEDED
from pipeline.runtime.clock import FakeClock


class Kept:
    """What a Store counts."""

    def __init__(self) -> None:
        self.counts = {1: {QUEUED: 0, SUCCEEDED: 0}, 2: {RUNNING: 0, DEAD: 0}}
        self.reads = 0

    def __call__(self):
        self.reads += 1
        return {type: dict(of) for type, of in self.counts.items()}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def room(kept: Kept, clock: FakeClock) -> Saturation:
    return Saturation(counts=kept, capacity=100, resume=0.8, clock=clock)


def refused(room: Saturation) -> Full:
    with pytest.raises(Full) as caught:
        room.admit()
    return caught.value


def test_the_counts_are_read_at_most_once_a_second(room, kept, clock):
    for _ in range(5):
        room.admit()
    assert kept.reads == 1
    clock.advance(1.0)
    room.admit()
    assert kept.reads == 2


def test_all_open_states_of_all_types_count_and_no_others(room, kept):
    kept.counts = {1: {QUEUED: 40, SCHEDULED: 30, SUCCEEDED: 10_000}, 2: {RUNNING: 29, DEAD: 500}}
    room.admit()
    room.taken()
    assert "100 jobs" in str(refused(room))


def test_ones_own_submissions_since_are_added(room, kept):
    room.admit()
    room.taken(99)
    room.admit()
    room.taken()
    refused(room)
    assert kept.reads == 1


def test_what_was_submitted_before_a_reading_is_in_it_and_not_added_again(room, kept, clock):
    room.admit()
    room.taken(60)
    kept.counts[1][QUEUED] = 60
    clock.advance(1.0)
    room.admit()
    room.taken(39)
    room.admit()


def test_what_comes_while_counts_are_read_is_not_lost(clock):
    def counts():
        filling.taken(100)
        return {1: {QUEUED: 0}}

    filling = Saturation(counts=counts, capacity=100, resume=0.8, clock=clock)
    refused(filling)


def test_once_full_it_is_refused_until_the_low_mark(room, kept, clock):
    kept.counts[1][QUEUED] = 100
    refused(room)
    for held, refusing in ((99, True), (81, True), (80, False), (99, False), (100, True)):
        kept.counts[1][QUEUED] = held
        clock.advance(1.0)
        if refusing:
            refused(room)
        else:
            room.admit()


def test_when_to_come_back_is_told_from_how_fast_jobs_end(room, kept, clock):
    kept.counts[1][QUEUED] = 100
    assert refused(room).retry_after_s == UNKNOWN_WAIT_S
    for _ in range(5):
        clock.advance(1.0)
        kept.counts[1][SUCCEEDED] += 4
        kept.counts[2][DEAD] += 1
        full = refused(room)
    # 20 jobs over the low mark, 5 a second.
    assert full.retry_after_s == pytest.approx(4.0, rel=0.3)
    assert "5 a second" in str(full)


def test_nobody_is_told_to_come_back_later_than_in_a_minute(room, kept, clock):
    kept.counts[1][QUEUED] = 1_000_000
    refused(room)
    clock.advance(1.0)
    kept.counts[1][SUCCEEDED] = 1
    assert refused(room).retry_after_s == MAX_WAIT_S


def test_what_ended_while_nobody_looked_tells_nothing_of_how_fast(room, kept, clock):
    room.admit()
    clock.advance(3600.0)
    kept.counts[1] = {QUEUED: 100, SUCCEEDED: 1_000_000}
    assert refused(room).retry_after_s == UNKNOWN_WAIT_S


def test_what_retention_deletes_is_not_taken_for_haste(room, kept, clock):
    kept.counts[1] = {QUEUED: 100, SUCCEEDED: 1_000}
    refused(room)
    clock.advance(1.0)
    kept.counts[1][SUCCEEDED] = 0
    assert refused(room).retry_after_s == UNKNOWN_WAIT_S


def test_where_nothing_ends_nobody_is_told_to_come_back_soon(room, kept, clock):
    kept.counts[1] = {QUEUED: 100}
    assert refused(room).retry_after_s == UNKNOWN_WAIT_S
    for _ in range(6):
        clock.advance(1.0)
        full = refused(room)
    assert full.retry_after_s == MAX_WAIT_S


def test_that_no_runner_lives_is_told(kept, clock):
    kept.counts[1] = {QUEUED: 100}
    room = Saturation(counts=kept, capacity=100, resume=0.8, clock=clock, lives=lambda: False)
    full = refused(room)
    assert full.retry_after_s == MAX_WAIT_S
    assert "no runner lives" in str(full)


def test_jobs_for_later_shut_out_only_their_like(kept, clock):
    later = 0
    room = Saturation(
        counts=kept, capacity=100, resume=0.8, clock=clock, later=lambda most: min(later, most)
    )
    room.admit_later()
    room.taken(50, later=True)
    with pytest.raises(Full, match="50 jobs wait for a time"):
        room.admit_later()
    room.admit()
    later = 50
    kept.counts[1] = {QUEUED: 99, SCHEDULED: 50}
    clock.advance(1.0)
    room.admit()
    with pytest.raises(Full) as caught:
        room.admit_later()
    assert caught.value.retry_after_s == MAX_WAIT_S
    room.taken()
    assert "100 jobs have not ended, besides 50 for later, of 100" in str(refused(room))


def test_jobs_for_later_are_not_counted_one_by_one_while_there_are_few(kept, clock):
    def later(most):
        raise AssertionError

    kept.counts[1] = {QUEUED: 30, SCHEDULED: 49}
    Saturation(counts=kept, capacity=100, resume=0.8, clock=clock, later=later).admit()


def test_a_store_that_cannot_be_asked_is_asked_again(clock):
    answers = [ValueError("away"), {1: {QUEUED: 0}}]

    def counts():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    room = Saturation(counts=counts, capacity=1, resume=0.5, clock=clock)
    with pytest.raises(ValueError, match="away"):
        room.admit()
    room.admit()


@pytest.mark.concurrency
def test_while_one_asks_others_go_on_with_what_is_known(kept, clock):
    asking, answer = threading.Event(), threading.Event()
    first = True

    def counts():
        nonlocal first
        if not first:
            asking.set()
            assert answer.wait(30)
        first = False
        return kept()

    room = Saturation(counts=counts, capacity=100, resume=0.8, clock=clock)
    room.admit()
    clock.advance(1.0)
    slow = threading.Thread(target=room.admit)
    slow.start()
    assert asking.wait(30)
    room.admit()
    answer.set()
    slow.join(30)
    assert not slow.is_alive()
    assert kept.reads == 2
