"""Fair shares of a sink's room: a tenant that floods shuts nobody out; when it may go on."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from pipeline.errors import Saturated
from pipeline.intake.admission import Admission
from pipeline.intake.shares import MAX_WAITING, PATIENCE_S, WINDOW_S, Shares, Tenant
from pipeline.runtime.clock import FakeClock
from pipeline.settings import PipelineSettings


def admission(clock: FakeClock, *, capacity: int = 100, nbytes: int = 1_000_000) -> Admission:
    settings = PipelineSettings(
        capacity_records=capacity, backlog_max_bytes=nbytes, max_records=1, max_bytes=1
    )
    return Admission(name="a", settings=settings, clock=clock)


def taken(room: Admission, tenant: str, records: int = 1, nbytes: int = 0) -> bool:
    try:
        room.reserve(records, nbytes, tenant=tenant)
    except Saturated:
        return False
    return True


def fill(room: Admission, tenant: str, step: int = 1) -> int:
    """Offer until it is refused; how much was taken."""
    count = 0
    while taken(room, tenant, step):
        count += step
    return count


def test_alone_a_tenant_may_fill_everything_that_is_admissible(clock: FakeClock) -> None:
    room = admission(clock)
    assert fill(room, "a") == 80
    assert room.usage() == pytest.approx(1.0)


def test_a_flooding_tenant_does_not_shut_a_quiet_one_out(clock: FakeClock) -> None:
    room = admission(clock)
    fill(room, "flood")
    assert room.refusing
    assert room.check("quiet") is None
    assert fill(room, "quiet") == 20, "the rest of the room is for those below their share"
    assert not taken(room, "flood")


def test_while_another_waits_no_tenant_gets_beyond_its_share(clock: FakeClock) -> None:
    room = admission(clock)
    fill(room, "flood")
    assert taken(room, "quiet", 20)
    assert not taken(room, "quiet"), "full: it waits from now on"
    room.release(35, 0, tenant="flood")
    room.release(20, 0, tenant="quiet")
    assert not room.refusing
    assert taken(room, "flood", 5), "45 and 5 of 100, by two active tenants"
    blocked = room.check("flood")
    assert blocked is not None
    assert "fair share is 50" in str(blocked)
    assert taken(room, "quiet", 29), "whoever is below its share goes on"
    assert room.check("quiet") is None


def test_a_tenant_that_has_room_again_waits_no_more(clock: FakeClock) -> None:
    room = admission(clock)
    fill(room, "a")
    assert taken(room, "b", 20)
    assert not taken(room, "b")
    room.release(60, 0, tenant="a")
    assert room.figures()["waiting_tenants"] == 2, "a waits as well: it was refused"
    assert taken(room, "b")
    assert taken(room, "a")
    assert room.figures()["waiting_tenants"] == 0
    assert taken(room, "a", 50), "nobody waits: beyond its share of 50"


def test_what_those_who_wait_cannot_claim_is_anybodys(clock: FakeClock) -> None:
    room = admission(clock, capacity=1_000)
    fill(room, "main", 10)
    refused = sum(not taken(room, f"t{n}") for n in range(300))
    assert refused == 100, "they wait, and never come back"
    room.release(700, 0, tenant="main")
    assert not room.refusing
    # Of 301 shares those who wait have 100: two thirds of the room are nobody else's.
    assert room.held_records + fill(room, "main", 10) == 300 + 360
    with pytest.raises(Saturated, match="100 of 301 active tenants"):
        room.reserve(10, 0, tenant="main")


def test_who_does_not_come_back_is_forgotten(clock: FakeClock) -> None:
    room = admission(clock)
    fill(room, "a")
    assert taken(room, "b", 20)
    refused = room.check("b")
    assert refused is not None
    room.release(40, 0, tenant="a", drained=False)
    room.release(20, 0, tenant="b", drained=False)
    assert taken(room, "a", 10)
    assert not taken(room, "a"), "b may come back for its share yet"
    clock.advance(refused.retry_after_s + PATIENCE_S + 0.1)
    assert taken(room, "a", 20)
    assert room.figures()["active_tenants"] == 1


def test_a_hundred_tenants_have_a_hundredth_each(clock: FakeClock) -> None:
    room = admission(clock, capacity=10_000)
    fill(room, "t0", 10)
    for n in range(1, 100):
        assert taken(room, f"t{n}", 10), "each one gets in, though one has filled it to the mark"
    while room.held_records < 10_000:  # full: they wait
        room.fits(1, 0, tenant="t0")
    for n in range(1, 100):
        assert not taken(room, f"t{n}", 1)
    room.release(7_500, 0, tenant="t0")
    assert not room.refusing
    held = {f"t{n}": fill(room, f"t{n}", 10) + 10 for n in range(2, 100)}
    assert max(held.values()) <= 100
    assert min(held.values()) >= 60
    assert not taken(room, "t0")


def test_one_request_may_be_more_than_the_share(clock: FakeClock) -> None:
    room = admission(clock, capacity=1_000)
    for n in range(80):
        assert taken(room, f"t{n}", 10)
    assert room.refusing
    assert taken(room, "late", 100), "it would wait for ever otherwise"
    assert not taken(room, "late", 1)


def test_also_when_it_waited_for_it(clock: FakeClock) -> None:
    room = admission(clock, capacity=1_000)
    for n in range(100):
        assert room.fits(10, 0, tenant=f"t{n}")
    assert not taken(room, "late", 100), "full"
    for n in range(10):
        room.release(10, 0, tenant=f"t{n}")
    assert taken(room, "late", 100), "a hundred and one share a thousand"


def test_bytes_have_shares_as_well(clock: FakeClock) -> None:
    room = admission(clock, nbytes=1_000)
    assert taken(room, "a", 1, 800)
    assert taken(room, "b", 1, 200)
    assert not taken(room, "b", 1, 1)
    room.release(0, 500, tenant="a")
    assert not taken(room, "a", 1, 300), "300 and 300 of 1,000 by two"
    assert taken(room, "b", 1, 200)


def test_a_blocked_tenants_time_is_that_of_its_own_records(clock: FakeClock) -> None:
    room = admission(clock, capacity=1_000)
    fill(room, "a", 10)
    assert taken(room, "b", 200)
    assert not taken(room, "b")
    for _ in range(2):
        clock.advance(1)
        room.release(10, 0, tenant="a")
        room.release(95, 0, tenant="b")
    blocked = room.check("a")
    assert blocked is not None
    # 780 held, a share of 500, and one more: 281 records at 20 in the second since its first left.
    assert blocked.retry_after_s == pytest.approx(14.05)


def test_a_tenants_own_rate_is_that_of_two_windows() -> None:
    one = Tenant()
    assert one.drain_rate(100.0) == 0
    one.left(300, 100.0)
    assert one.drain_rate(100.5) == 300, "of a second at least"
    one.left(200, 100.0 + WINDOW_S)
    now = 100.0 + 2 * WINDOW_S - 1.0
    assert one.drain_rate(now) == pytest.approx(500 / (2 * WINDOW_S - 1.0))
    one.left(70, 100.0 + 4 * WINDOW_S)
    assert one.drain_rate(100.0 + 4 * WINDOW_S) == 70, "what left long ago counts no more"
    assert one.drain_rate(100.0 + 6 * WINDOW_S) == 0


def test_equal_tenants_are_refused_from_mark_to_mark(clock: FakeClock) -> None:
    room = admission(clock)
    for _ in range(40):
        assert taken(room, "a")
        assert taken(room, "b")
    assert not taken(room, "a")
    assert not taken(room, "b")
    room.release(10, 0, tenant="a")
    assert not taken(room, "a"), "30 of the 60 below the low mark: no more than its share"
    room.release(1, 0, tenant="a")
    assert taken(room, "a")


def test_what_was_adopted_is_held_by_its_tenants(clock: FakeClock) -> None:
    room = admission(clock)
    room.adopt({"a": 60, "b": 30}, 901)
    assert (room.held_records, room.held_bytes) == (90, 901)
    assert room.figures()["active_tenants"] == 2
    room.release_all([("a", 60, 700), ("b", 30, 201)])
    assert (room.held_records, room.held_bytes) == (0, 0)
    assert room.figures()["active_tenants"] == 0


@pytest.mark.long
def test_ten_thousand_tenants_leave_nothing_behind(clock: FakeClock) -> None:
    room = admission(clock, capacity=8_000)
    for n in range(10_000):
        taken(room, f"tenant-{n}")
    assert room.figures()["waiting_tenants"] == 2_000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for turn in range(5):
            for n in range(10_000):
                room.check(f"tenant-{n}")
            clock.advance(turn)
        assert tracemalloc.get_traced_memory()[0] - before < 16_000_000
    finally:
        tracemalloc.stop()
    for n in range(10_000):
        if n < 8_000:
            room.release(1, 0, tenant=f"tenant-{n}")
    clock.advance(1_000)
    figures = room.figures()
    assert (figures["active_tenants"], figures["waiting_tenants"]) == (0, 0)
    assert taken(room, "a", 8_000)


def test_those_that_wait_are_bounded() -> None:
    shares = Shares()
    for n in range(MAX_WAITING + 500):
        shares.wait(f"t{n}", 0.0, 1.0)
    assert (shares.waiting, shares.active) == (MAX_WAITING, MAX_WAITING)
    for turn in range(5):  # admitted, and refused again: the queue of times is bounded too
        for n in range(MAX_WAITING):
            shares.hold(f"t{n}", 1, 1)
            shares.release(f"t{n}", 1, 1, drained_at=None)
            shares.wait(f"t{n}", turn / 10, 1.0)
    assert len(shares._queue) <= 2 * MAX_WAITING + 1
    shares.expire(100.0)
    assert (shares.waiting, shares.active, len(shares._queue)) == (0, 0, 0)


def test_many_that_were_admitted_again_make_no_refusal_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    swept: list[int] = []

    class Counting(Shares):
        def _sweep(self) -> None:
            swept.append(len(self._queue))
            super()._sweep()

    monkeypatch.setattr("pipeline.intake.shares.MAX_WAITING", 100)
    shares = Counting()
    for n in range(1_000):  # each was refused once and holds something since
        shares.wait(f"t{n}", 0.0, 60.0)
        shares.hold(f"t{n}", 1, 1)
    assert swept == [200, 400, 800], "as often as their number doubles"
    for n in range(1_000):
        shares.release(f"t{n}", 1, 1, drained_at=None)
        shares.wait(f"u{n}", 0.0, 60.0)
        shares.hold(f"u{n}", 1, 1)
        shares.release(f"u{n}", 1, 1, drained_at=None)
    assert len(shares._queue) < 1_600
    shares.expire(100.0)
    assert (shares.waiting, shares.active, len(shares._queue)) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_the_books_of_tenants_add_up(clock: FakeClock, seed: int) -> None:
    chance = random.Random(seed)
    room = admission(clock, capacity=200, nbytes=5_000)
    held: list[tuple[str, int, int]] = []
    for _ in range(3_000):
        clock.advance(chance.random())
        if held and chance.random() < 0.5:
            tenant, records, nbytes = held.pop(chance.randrange(len(held)))
            room.release(records, nbytes, tenant=tenant, drained=chance.random() < 0.8)
        else:
            one = (f"t{chance.randrange(8)}", chance.randrange(1, 30), chance.randrange(500))
            if taken(room, *one):
                held.append(one)
        assert room.held_records == sum(records for _, records, _ in held) <= 200
        assert room.held_bytes == sum(nbytes for _, _, nbytes in held) <= 5_000
        holding = {tenant for tenant, _, _ in held}
        figures = room.figures()
        assert len(holding) <= figures["active_tenants"] <= 8
        assert figures["active_tenants"] <= len(holding) + figures["waiting_tenants"]
    for tenant, records, nbytes in held:
        room.release(records, nbytes, tenant=tenant)
    clock.advance(1_000)
    assert room.figures()["active_tenants"] == 0
