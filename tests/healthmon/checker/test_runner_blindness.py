"""What the loop could not see: nobody is down for it, and long blindness is unknown."""

from __future__ import annotations

import asyncio

import pytest

from healthmon.probes.kind import VOID, Result
from tests.healthmon.checker.stand import Stand, failed, up
from tests.healthmon.checker.virtual import EPOCH_US, freeze, run


def test_a_stalled_loop_makes_its_failures_void() -> None:
    stand = Stand()
    stand.takes_s = lambda _: 1e9
    stand.answer = failed

    async def main() -> None:
        stand.stalls.start(asyncio.get_running_loop())
        stand.put(1, up(), interval_s=10.0, timeout_s=4.0)
        while not stand.began[1]:
            await asyncio.sleep(0.01)
        freeze(stand.clock, 4.5)
        await asyncio.sleep(1.0)

    run(stand.clock, main())
    assert [result.outcome for _, _, result in stand.results] == [VOID]
    assert "the checker stood still" in stand.results[0][2].error
    assert stand.changes == []
    assert stand.stalls.stalls == 1


@pytest.mark.long
def test_a_frozen_minute_makes_thousands_unknown_and_nobody_down() -> None:
    stand = Stand(total=5_000)
    frozen = False
    stand.answer = lambda _: failed() if frozen else Result(total_ms=1.0)

    async def main() -> None:
        nonlocal frozen
        stand.stalls.start(asyncio.get_running_loop())
        for one in range(1, 2_001):
            stand.put(one, up(), interval_s=10.0)
        await asyncio.sleep(25)
        assert stand.changes == []
        frozen = True  # what was under way fails when the process goes on
        freeze(stand.clock, 60)
        await asyncio.sleep(0)
        frozen = False
        await asyncio.sleep(30)

    run(stand.clock, main())
    statuses = {status for one in range(1, 2_001) for status in stand.statuses(one)}
    assert statuses == {"unknown", "up"}
    for one in range(1, 2_001):
        assert stand.statuses(one) == ["unknown", "up"]
    assert stand.runner.figures.missed_windows >= 2_000 * 4
    unknown = [one for one in stand.changes if one.to_status == "unknown"]
    frozen_at = EPOCH_US + (1_000 + 25) * 1e6
    # Dated in the minute in which nobody looked, not when it was noticed.
    assert all(frozen_at - 1e6 <= one.at_us <= frozen_at + 61e6 for one in unknown)


def test_without_a_network_nothing_is_down_and_long_blindness_is_unknown() -> None:
    stand = Stand()
    stand.answer = failed
    stand.network_gone = "this checker has no network"

    async def main() -> None:
        stand.put(1, up(), interval_s=10.0)
        await asyncio.sleep(60)

    run(stand.clock, main())
    assert stand.statuses() == ["unknown"]
    assert {result.outcome for _, _, result in stand.results} == {VOID}


def test_nothing_is_said_under_a_lease_that_is_lost_nor_remembered() -> None:
    stand = Stand()
    stand.answer = failed

    async def main() -> None:
        stand.put(1, up(), interval_s=10.0)
        stand.epochs.clear()
        await asyncio.sleep(60)
        assert stand.runner.entries[1].memory.status == "up"
        stand.epochs[1] = 1
        await asyncio.sleep(30)

    run(stand.clock, main())
    assert stand.statuses() == ["unknown", "down"]


def test_what_could_not_be_said_while_the_lease_was_in_doubt_is_said_later() -> None:
    stand = Stand()

    async def main() -> None:
        for one in (1, 2):
            stand.put(one, up())
        held = dict(stand.epochs)
        stand.epochs.clear()
        stand.put(1, paused=True)
        stand.runner.in_window(2, "disks")
        stand.epochs.update(held)
        stand.runner.reconcile(lambda spec: "disks" if spec.id == 2 else None)
        await asyncio.sleep(1)
        stand.runner.reconcile(lambda spec: None)

    run(stand.clock, main())
    assert stand.statuses(1) == ["paused"]
    assert stand.statuses(2)[0] == "maintenance"
    assert len(stand.statuses(2)) == 2


@pytest.mark.parametrize("before_s", [60.0, 3_600.0])
def test_who_is_probed_more_often_from_now_on_was_not_blind_before(before_s: float) -> None:
    stand = Stand()

    async def main() -> None:
        stand.put(1, up(), interval_s=before_s)
        await asyncio.sleep(before_s * 2.6)
        stand.put(1, interval_s=5.0)
        await asyncio.sleep(60)

    run(stand.clock, main())
    assert stand.changes == []
    assert len(stand.began[1]) >= 12


def test_who_waits_for_room_is_not_said_to_be_unseen_each_time() -> None:
    stand = Stand(per_host=1)
    stand.takes_s = lambda _: 4.0

    async def main() -> None:
        for one in range(1, 9):
            stand.put(one, up(), host="crowded", interval_s=10.0)
        for _ in range(600):
            await asyncio.sleep(1)
            stand.runner.reconcile(lambda spec: None)

    run(stand.clock, main())
    assert stand.changes == []
    assert stand.runner.figures.missed_windows > 0


def test_who_waits_for_room_for_ever_is_unknown_and_says_why() -> None:
    stand = Stand(per_host=1)
    stand.takes_s = lambda one: 1e9 if one == 1 else 0.1

    async def main() -> None:
        stand.put(1, up(), host="stuck.example", timeout_s=5_000.0)
        while not stand.running["all"]:
            await asyncio.sleep(0.1)
        stand.put(2, up(), host="stuck.example")
        for _ in range(300):
            await asyncio.sleep(1)
            stand.runner.reconcile(lambda spec: None)
        assert stand.limits.crowded(3) == [("stuck.example", 1)]

    run(stand.clock, main())
    assert stand.statuses(2) == ["unknown"]
    assert "too many targets of stuck.example are due" in stand.changes[0].reason
