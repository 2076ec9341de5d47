from __future__ import annotations

import threading

import pytest

from control.web.permits import NoPermit, Permits


def test_no_more_than_the_limit_are_given() -> None:
    permits = Permits(limit=2)
    with permits.take(), permits.take():
        assert permits.taken == 2
        with pytest.raises(NoPermit), permits.take():
            raise AssertionError("a third was given")
    assert permits.taken == 0


def test_a_smaller_limit_waits_for_those_taken() -> None:
    permits = Permits(limit=3)
    assert permits.try_take()
    assert permits.try_take()
    permits.resize(1)
    permits.give_back()
    assert not permits.try_take()
    permits.give_back()
    assert permits.try_take()


def test_ingest_is_never_left_without_any() -> None:
    permits = Permits(limit=5)
    permits.resize(0)
    assert permits.limit == 1


def test_giving_back_what_nobody_took_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="nobody took"):
        Permits(limit=1).give_back()


@pytest.mark.concurrency
def test_threads_racing_never_exceed_the_limit() -> None:
    permits, lock = Permits(limit=3), threading.Lock()
    inside, most, refused = 0, 0, 0
    barrier = threading.Barrier(8)

    def work() -> None:
        nonlocal inside, most, refused
        barrier.wait(180)
        for _ in range(300):
            try:
                with permits.take():
                    with lock:
                        inside += 1
                        most = max(most, inside)
                    with lock:
                        inside -= 1
            except NoPermit:
                with lock:
                    refused += 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    assert permits.taken == 0
    assert most <= 3
