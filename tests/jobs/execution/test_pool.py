"""Helpers: as many as there is work for, up to a bound, and gone when there is none."""

from __future__ import annotations

import threading

import pytest

from jobs.execution.pool import StepPool
from pipeline.runtime.clock import FakeClock
from tests.jobs.execution.harness import GENEROUS_S

pytestmark = pytest.mark.concurrency


def test_it_grows_to_its_bound_and_ends_idle_helpers() -> None:
    clock = FakeClock()
    pool = StepPool(max_threads=2, clock=clock, idle_s=30.0)
    began, go = threading.Semaphore(0), threading.Event()

    def work() -> None:
        began.release()
        assert go.wait(GENEROUS_S)

    for _ in range(5):
        pool.offer(work)
    for _ in range(2):
        assert began.acquire(timeout=GENEROUS_S)
    assert pool.threads == 2
    go.set()
    for _ in range(3):
        assert began.acquire(timeout=GENEROUS_S)
    clock.await_waiting(2)
    clock.advance(30.0)
    while pool.threads:
        threading.Event().wait(0.001)
    assert pool.close(0.0)


def test_what_was_withdrawn_is_not_begun() -> None:
    pool = StepPool(max_threads=1, clock=FakeClock())
    first, go, ran = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        first.set()
        assert go.wait(GENEROUS_S)

    def unwanted() -> None:
        raise AssertionError("it was withdrawn")

    pool.offer(hold)
    assert first.wait(GENEROUS_S)
    pool.offer(unwanted)
    pool.offer(ran.set)
    pool.withdraw(unwanted)
    go.set()
    assert ran.wait(GENEROUS_S)
    pool.close(0.0)


def test_a_helper_survives_what_it_ran() -> None:
    pool = StepPool(max_threads=1, clock=FakeClock())
    ran = threading.Event()

    def fail() -> None:
        raise ValueError("on purpose")

    pool.offer(fail)
    pool.offer(ran.set)
    assert ran.wait(GENEROUS_S)
    pool.close(0.0)


def test_a_closed_pool_begins_nothing() -> None:
    pool = StepPool(max_threads=1, clock=FakeClock())
    assert pool.close(0.0)
    pool.offer(lambda: pytest.fail("it is closed"))
    assert pool.threads == 0
