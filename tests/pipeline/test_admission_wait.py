"""A short wait for room: woken by what leaves, tenants in turns, and no longer than it was told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from pipeline.errors import Draining, Refused, Saturated
from pipeline.intake.admission import Admission
from pipeline.intake.waitingroom import Promised, Ticket, WaitingRoom
from pipeline.runtime.clock import FakeClock
from pipeline.settings import PipelineSettings
from tests.pipeline.rig import Rig
from tests.pipeline.support import PATIENCE_S, records, spec


def admission(clock: FakeClock) -> Admission:
    settings = PipelineSettings(
        capacity_records=100, backlog_max_bytes=10_000, max_records=1, max_bytes=1
    )
    return Admission(name="a", settings=settings, clock=clock)


class Waiters:
    """Threads that wait for room, and in which order they were let in."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.order: list[str] = []
        self.refused: list[str] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def wait(
        self,
        name: str,
        ask: Callable[[], Refused | None],
    ) -> None:
        """In a thread of its own; returns once it waits."""

        def run() -> None:
            refused = ask()
            with self._lock:
                (self.refused if refused is not None else self.order).append(name)

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        self.clock.await_waiting(len(self._threads))

    def join_one(self, name: str) -> None:
        for thread in self._threads:
            if thread.name == name:
                thread.join(PATIENCE_S)
                assert not thread.is_alive(), f"{name} waits still"

    def join(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), f"{thread.name} waits still"


@pytest.fixture
def waiters(clock: FakeClock) -> Iterator[Waiters]:
    waiters = Waiters(clock)
    yield waiters
    clock.advance(10_000)
    waiters.join()


def asks(
    room: Admission, tenant: str, *, records: int = 1, wait_s: float = 2.0
) -> Callable[[], Refused | None]:
    return lambda: room.await_room(records, 0, tenant=tenant, timeout_s=wait_s)


def test_it_is_let_in_as_soon_as_there_is_room(clock: FakeClock, waiters: Waiters) -> None:
    room = admission(clock)
    room.reserve(80, 0, tenant="a")
    waiters.wait("a", asks(room, "a"))
    room.release(19, 0, tenant="a")
    assert room.figures()["waiting_requests"] == 1, "61 is above the low mark"
    room.release(1, 0, tenant="a")
    waiters.join()
    assert (waiters.order, room.refused) == (["a"], 0)


def test_it_is_refused_when_its_time_is_over(clock: FakeClock, waiters: Waiters) -> None:
    room = admission(clock)
    room.reserve(80, 0, tenant="a")
    waiters.wait("a", asks(room, "a", wait_s=2.0))
    clock.advance(1.9)
    clock.await_waiting(1)
    assert waiters.refused == []
    clock.advance(0.2)
    waiters.join()
    assert (waiters.refused, room.refused) == (["a"], 1)
    assert room.figures()["waiting_requests"] == 0


def test_tenants_are_let_in_by_turns(clock: FakeClock, waiters: Waiters) -> None:
    lock = threading.Lock()
    room = WaitingRoom(lock=lock, clock=clock)

    def asking(tenant: str, records: int) -> Callable[[], Refused | None]:
        def ask() -> Refused | None:
            with lock:
                return None if room.wait(tenant, records, 0, 60.0) else Saturated("in vain")

        return ask

    for tenant, number in (("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)):
        waiters.wait(f"{tenant}{number}", asking(tenant, number))
    asked: list[int] = []

    def admits(ticket: Ticket, promised: Promised) -> bool:
        fits = ticket.tenant != "c" and len(asked) < limit
        if fits:
            asked.append(ticket.records)
        return fits

    limit = 3
    with lock:
        room.let_in(admits)
        assert (asked, len(room)) == ([1, 4, 2], 3)
        limit = 9
        room.let_in(admits)
        assert (asked, len(room)) == ([1, 4, 2, 6, 3], 1), "b was passed over, and comes first"
        room.let_all_in()
    waiters.join()
    assert sorted(waiters.order) == ["a1", "a2", "a3", "b4", "b6", "c5"]


def test_a_blocked_tenant_is_let_in_after_the_others(clock: FakeClock, waiters: Waiters) -> None:
    room = admission(clock)
    room.reserve(79, 0, tenant="flood")
    room.fits(21, 0, tenant="flood")
    waiters.wait("flood", asks(room, "flood"))
    waiters.wait("quiet", asks(room, "quiet"))
    room.release(10, 0, tenant="flood")
    waiters.join_one("quiet")
    assert room.figures()["waiting_requests"] == 1
    room.reserve(5, 0, tenant="quiet")
    room.release(35, 0, tenant="flood")
    waiters.join()
    assert waiters.order == ["quiet", "flood"]


def test_whoever_is_let_in_is_counted_against_the_room(clock: FakeClock, waiters: Waiters) -> None:
    room = admission(clock)
    room.reserve(79, 0, tenant="x")
    room.fits(21, 0, tenant="x")
    for name in ("a", "b", "c"):
        waiters.wait(name, asks(room, name, records=40))
    room.release(90, 0, tenant="x")
    assert room.figures()["waiting_requests"] == 1, "two of forty fit beside ten"


def test_what_others_were_promised_is_no_part_of_ones_own_share(
    clock: FakeClock, waiters: Waiters
) -> None:
    room = admission(clock)
    for name in ("a", "b", "c", "d"):
        room.reserve(1, 0, tenant=name)
    room.fits(96, 0, tenant="flood")
    for name in ("a", "b", "c", "d"):
        waiters.wait(name, asks(room, name, records=8))
    room.release(33, 0, tenant="flood")
    assert room.refusing, "67 is above the low mark: a fifth of that each"
    waiters.join()
    assert sorted(waiters.order) == ["a", "b", "c", "d"], "9 each, of 12"


def test_what_a_tenant_was_promised_is_part_of_its_share(
    clock: FakeClock, waiters: Waiters
) -> None:
    room = admission(clock)
    room.reserve(1, 0, tenant="a")
    room.fits(99, 0, tenant="flood")
    for _ in range(2):
        waiters.wait("a", asks(room, "a", records=19))
    room.release(39, 0, tenant="flood")
    assert room.refusing, "61 is above the low mark, of which half is 30"
    assert room.figures()["waiting_requests"] == 1


def test_a_closed_admission_lets_everybody_go(clock: FakeClock, waiters: Waiters) -> None:
    room = admission(clock)
    room.reserve(80, 0, tenant="a")
    waiters.wait("a", asks(room, "a"))
    room.close()
    waiters.join()
    assert waiters.order == ["a"], "it is routed anew, and finds out"


def test_an_engine_waits_for_every_required_sink(rig: Rig) -> None:
    one, two = rig.held_sink(), rig.held_sink()
    engine = rig.start(
        spec(one, capacity_records=100, max_records=80),
        spec(two, key="b", capacity_records=100, max_records=80),
    )
    rig.offer(records(80))
    one.await_writes(1)
    two.await_writes(1)
    found: list[Refused | None] = []
    thread = threading.Thread(
        target=lambda: found.append(engine.await_room("log", "t", records=10, timeout_s=5.0)),
        daemon=True,
    )
    thread.start()
    while not rig.pipeline("a")["waiting_requests"]:
        assert thread.is_alive()
    one.let_go()
    while not rig.pipeline("b")["waiting_requests"]:
        assert thread.is_alive(), "the other one is full as well"
    two.let_go()
    thread.join(PATIENCE_S)
    assert found == [None]


def test_a_wait_ends_with_the_engines_own_reason(rig: Rig) -> None:
    engine = rig.start(spec(rig.held_sink(), capacity_records=100, max_records=80))
    rig.offer(records(80))
    assert isinstance(engine.await_room("log", "t", timeout_s=0.0), Saturated)
    engine.drain(0.0)
    assert isinstance(engine.await_room("log", "t", timeout_s=5.0), Draining)
