"""The loop that probes: on time, within limits, and to its end."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from healthmon.probes.kind import DEGRADED, Result
from healthmon.targets.phase import next_on_grid
from tests.healthmon.checker.stand import Stand, failed, up
from tests.healthmon.checker.virtual import EPOCH_US, run


def test_a_target_is_probed_on_its_grid_without_drift() -> None:
    stand = Stand()
    stand.takes_s = lambda _: 0.7

    async def main() -> None:
        stand.put(7, up(), interval_s=10.0)
        await asyncio.sleep(3_600)

    run(stand.clock, main())
    began = stand.began[7]
    ahead = EPOCH_US / 1e6
    assert len(began) == 360
    for at in began:
        wall = at + ahead
        assert abs(next_on_grid(7, 10.0, wall - 1e-3) - wall) < 1e-3


def test_a_new_target_is_probed_within_a_second() -> None:
    stand = Stand()

    async def main() -> None:
        for target_id in range(1, 51):
            stand.put(target_id, interval_s=86_400.0)
        await asyncio.sleep(1.1)

    run(stand.clock, main())
    assert len(stand.began) == 50


def test_a_target_that_is_probed_once_a_day_is_looked_at_soon_after_a_start() -> None:
    stand = Stand()

    async def main() -> None:
        for target_id in range(1, 51):
            stand.put(target_id, up(), interval_s=86_400.0)
        await asyncio.sleep(61)

    run(stand.clock, main())
    assert len(stand.began) == 50


def test_it_is_down_after_the_threshold_and_confirms_faster_than_its_interval() -> None:
    stand = Stand()
    stand.answer = failed

    async def main() -> None:
        stand.put(1, up(), interval_s=60.0, retry_interval_s=2.0)
        await asyncio.sleep(70)

    run(stand.clock, main())
    assert stand.statuses() == ["down"]
    first, second, third = stand.began[1][:3]
    assert second - first == pytest.approx(2.0, abs=0.1)
    assert third - second == pytest.approx(2.0, abs=0.1)
    change = stand.changes[0]
    assert change.at_us == pytest.approx(EPOCH_US + first * 1e6, abs=2_000)
    assert (change.seq, change.epoch, change.slot, change.checker) == (2, 1, 1, "stand")
    assert change.reason == "connection refused"


def test_a_change_is_confirmed_at_the_retry_interval_and_no_sooner() -> None:
    stand = Stand()
    stand.answer = failed

    async def main() -> None:
        for one in range(1, 51):
            stand.put(one, up(), interval_s=7.0, retry_interval_s=5.0)
        await asyncio.sleep(60)

    run(stand.clock, main())
    for one in range(1, 51):
        first, second, third = stand.began[one][:3]
        assert second - first >= 5.0
        assert third - second >= 5.0


def test_a_probe_that_hangs_ends_at_its_deadline_and_skips_the_turns_it_overran() -> None:
    stand = Stand()
    stand.takes_s = lambda _: 1e9

    async def main() -> None:
        stand.put(1, up(), interval_s=1.0, timeout_s=3.5)
        await asyncio.sleep(60)

    run(stand.clock, main())
    assert stand.most["all"] == 1
    assert {result.error for _, _, result in stand.results} == {"no answer within 3.5 s"}
    assert 13 <= len(stand.results) <= 16
    assert stand.statuses() == ["down"]


def test_what_a_probe_raises_is_the_targets_failure() -> None:
    stand = Stand()
    stand.answer = lambda _: RuntimeError("odd")

    async def main() -> None:
        stand.put(1, up())
        await asyncio.sleep(11)

    run(stand.clock, main())
    assert stand.results[0][2].error == "RuntimeError: odd"


def test_hanging_targets_hold_back_only_their_own_host() -> None:
    stand = Stand(total=1_000, per_host=10)
    stand.takes_s = lambda one: 1e9 if one > 1_000 else 0.01

    async def main() -> None:
        for one in range(1, 51):
            stand.put(one, up(), host=f"good {one}", interval_s=5.0)
        for one in range(1_001, 1_101):
            stand.put(one, up(), host="hangs", interval_s=5.0, timeout_s=10.0)
        await asyncio.sleep(120)

    run(stand.clock, main())
    assert stand.most["hangs"] == 10
    for one in range(1, 51):
        assert 23 <= len(stand.began[one]) <= 25


def test_slow_is_degraded_where_that_is_asked_for() -> None:
    stand = Stand()
    stand.answer = lambda _: Result(total_ms=250.0)

    async def main() -> None:
        stand.put(1, up(), degraded_after_ms=200.0)
        stand.put(2, up())
        await asyncio.sleep(40)

    run(stand.clock, main())
    assert stand.statuses(1) == [DEGRADED]
    assert stand.statuses(2) == []
    assert stand.changes[0].reason == "took 250 ms, more than 200 ms"


def test_a_clock_that_is_set_moves_neither_schedule_nor_order() -> None:
    stand = Stand()

    async def main() -> None:
        stand.put(1, up(), interval_s=10.0)
        await asyncio.sleep(50)
        stand.clock.wall_step_us = -3_600_000_000
        assert stand.time.correct() == pytest.approx(-3_600)
        await asyncio.sleep(50)
        stand.clock.wall_step_us = 86_400_000_000
        assert stand.time.correct() == pytest.approx(90_000)
        await asyncio.sleep(50)

    run(stand.clock, main())
    began = stand.began[1]
    assert len(began) == 15
    assert all(9.9 < later - earlier < 10.1 for earlier, later in pairwise(began))
    assert stand.changes == []


def test_a_stop_lets_probes_end_and_cancels_those_that_do_not() -> None:
    stand = Stand()
    stand.takes_s = lambda one: 0.5 if one == 1 else 1e9

    async def main() -> None:
        stand.put(1)
        stand.put(2, timeout_s=100.0)
        while stand.running["all"] < 2:
            await asyncio.sleep(0.01)
        await stand.runner.stop(2.0)

    run(stand.clock, main())
    assert [one for one, _, _ in stand.results] == [1]
    assert stand.running["all"] == 0
