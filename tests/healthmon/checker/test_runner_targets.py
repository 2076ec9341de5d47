"""Targets that come, change, and go while the loop probes them."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from healthmon.probes.kind import OK, Result
from healthmon.truth.machine import Memory
from tests.healthmon.checker.stand import Stand, failed, up
from tests.healthmon.checker.virtual import EPOCH_US, run


def test_a_removed_target_is_forgotten_in_mid_probe() -> None:
    stand = Stand(total=1)
    stand.takes_s = lambda _: 2.0

    async def main() -> None:
        stand.put(1)
        stand.put(2)
        while not stand.running["all"]:
            await asyncio.sleep(0.01)
        first = next(iter(stand.began))
        stand.runner.remove(first)
        await asyncio.sleep(5)
        assert first not in {one for one, _, _ in stand.results}
        assert {one for one, _, _ in stand.results} == {1, 2} - {first}

    run(stand.clock, main())
    assert stand.runner.in_flight == 0


def test_a_target_removed_while_it_waits_for_a_limit_holds_up_nobody() -> None:
    stand = Stand(total=1)
    stand.takes_s = lambda _: 3.0

    async def main() -> None:
        for one in (1, 2, 3):
            stand.put(one, interval_s=100.0)
        while stand.runner.parked < 2:
            await asyncio.sleep(0.01)
        parked = next(one for one in (1, 2, 3) if not stand.began[one])
        stand.runner.remove(parked)
        await asyncio.sleep(20)
        assert len(stand.results) == 2
        assert stand.runner.in_flight == stand.runner.parked == 0

    run(stand.clock, main())


def test_thousands_that_wait_for_one_host_can_be_removed_at_once() -> None:
    stand = Stand(total=5_000, per_host=1)
    stand.takes_s = lambda _: 3.0

    async def main() -> None:
        for one in range(1, 3_001):
            stand.put(one, host="one")
        while stand.runner.parked < 2_500:
            await asyncio.sleep(0.1)
        for one in range(1, 3_001):
            stand.runner.remove(one)
        await asyncio.sleep(10)
        assert stand.runner.in_flight == stand.runner.parked == 0
        stand.put(5_000, host="one")
        await asyncio.sleep(5)
        assert stand.began[5_000]

    run(stand.clock, main())


def test_a_probe_that_is_cancelled_before_it_began_gives_its_place_back() -> None:
    stand = Stand(total=1)

    async def main() -> None:
        stand.put(1, up(), interval_s=10.0)
        while not stand.runner.in_flight:
            await asyncio.sleep(0)
            if not stand.runner.in_flight:
                stand.clock.now_s += 0.1
        # Its task is made and has not run yet.
        stand.runner.beat()
        stand.runner.remove(1)
        await asyncio.sleep(1)
        assert stand.runner.in_flight == 0
        stand.put(2)
        await asyncio.sleep(2)
        assert stand.began[2]

    run(stand.clock, main())


def test_a_target_that_cannot_even_be_put_costs_no_other() -> None:
    stand = Stand()

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            stand.put(1, up(), interval_s=0.0)
        stand.put(2, up())
        await asyncio.sleep(15)

    run(stand.clock, main())
    assert stand.began[2]


def test_pause_and_resume_are_changes_of_their_own() -> None:
    stand = Stand()

    async def main() -> None:
        stand.put(1, up())
        await asyncio.sleep(20)
        stand.put(1, paused=True)
        probed = len(stand.began[1])
        await asyncio.sleep(60)
        assert len(stand.began[1]) <= probed + 1
        stand.put(1)
        await asyncio.sleep(15)

    run(stand.clock, main())
    assert stand.statuses() == ["paused", "new", "up"]


def test_what_is_paused_from_the_start_is_said_to_be_so() -> None:
    stand = Stand()
    passive = dataclasses.replace(stand.kind, probe=None)

    async def main() -> None:
        stand.put(1, paused=True)
        stand.put(2, paused=True, kind=passive)
        await asyncio.sleep(60)

    run(stand.clock, main())
    assert stand.statuses(1) == stand.statuses(2) == ["paused"]
    assert not stand.began


def test_a_run_that_is_asked_for_is_made_at_once_and_once() -> None:
    stand = Stand()

    async def main() -> None:
        stand.put(1, up(), interval_s=86_400.0)
        await asyncio.sleep(120)
        before = len(stand.began[1])
        stand.put(1, interval_s=86_400.0, run_requested_us=5)
        await asyncio.sleep(1)
        assert len(stand.began[1]) == before + 1
        stand.put(1, interval_s=86_400.0, run_requested_us=5)
        await asyncio.sleep(100)
        assert len(stand.began[1]) == before + 1

    run(stand.clock, main())


def test_a_result_of_what_a_target_was_before_it_changed_is_not_its() -> None:
    stand = Stand()
    stand.takes_s = lambda _: 2.0
    stand.answer = failed

    async def main() -> None:
        stand.put(1, up(), interval_s=5.0, fingerprint=1)
        while not stand.running["all"]:
            await asyncio.sleep(0.01)
        stand.put(1, interval_s=5.0, fingerprint=2)
        stand.answer = lambda _: Result(total_ms=1.0)
        stand.takes_s = lambda _: 0.1
        await asyncio.sleep(2.5)
        assert stand.results == []
        await asyncio.sleep(6)
        assert [result.outcome for _, _, result in stand.results][:1] == [OK]

    run(stand.clock, main())


def test_maintenance_silences_and_its_end_shows_what_is() -> None:
    stand = Stand()

    async def main() -> None:
        stand.put(1, up())
        stand.runner.in_window(1, "new disks")
        stand.answer = failed
        await asyncio.sleep(60)
        assert stand.statuses() == ["maintenance"]
        stand.runner.in_window(1, None)
        await asyncio.sleep(30)

    run(stand.clock, main())
    assert stand.statuses() == ["maintenance", "new", "down"]


def test_a_state_that_others_have_moved_is_gone_on_from() -> None:
    stand = Stand()
    stand.answer = failed

    async def main() -> None:
        stand.put(1, up())
        stand.runner.rebase(1, Memory(status="down", seq=5, since_us=EPOCH_US))
        stand.runner.rebase(1, Memory(status="up", seq=2, since_us=EPOCH_US))
        await asyncio.sleep(60)
        stand.answer = lambda _: Result(total_ms=1.0)
        await asyncio.sleep(30)

    run(stand.clock, main())
    assert stand.statuses() == ["up"]
    assert stand.changes[0].seq == 6


def test_what_cannot_be_probed_is_unknown_and_says_why() -> None:
    stand = Stand()

    async def main() -> None:
        stand.put(1, up())
        stand.put(1, broken="the secret option 'password' is missing")
        await asyncio.sleep(30)

    run(stand.clock, main())
    assert stand.statuses() == ["unknown"]
    assert stand.changes[0].reason == "misconfigured: the secret option 'password' is missing"
