"""The loop that probes: on time, within limits, and honest about what it could not see."""

from __future__ import annotations

import asyncio
import dataclasses
from itertools import pairwise

import pytest

from healthmon.checker.runner import _is_old_news
from healthmon.probes.kind import DEGRADED, FAILED, OK, VOID, Result
from healthmon.targets.phase import next_on_grid
from healthmon.truth.machine import Memory, Rules, restored
from tests.healthmon.checker.stand import Stand
from tests.healthmon.checker.virtual import EPOCH_US, freeze, run

UP = {"status": "up", "seq": 1}


def _up() -> Memory:
    return Memory(status="up", seq=1, since_us=EPOCH_US)


def _failed(_: int = 0) -> Result:
    return Result(outcome=FAILED, error="connection refused", total_ms=1.0)


def test_a_target_is_probed_on_its_grid_without_drift() -> None:
    stand = Stand()
    stand.takes_s = lambda _: 0.7

    async def main() -> None:
        stand.put(7, _up(), interval_s=10.0)
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
            stand.put(target_id, _up(), interval_s=86_400.0)
        await asyncio.sleep(61)

    run(stand.clock, main())
    assert len(stand.began) == 50


def test_it_is_down_after_the_threshold_and_confirms_faster_than_its_interval() -> None:
    stand = Stand()
    stand.answer = _failed

    async def main() -> None:
        stand.put(1, _up(), interval_s=60.0, retry_interval_s=2.0)
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


def test_a_probe_that_hangs_ends_at_its_deadline_and_skips_the_turns_it_overran() -> None:
    stand = Stand()
    stand.takes_s = lambda _: 1e9

    async def main() -> None:
        stand.put(1, _up(), interval_s=1.0, timeout_s=3.5)
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
        stand.put(1, _up())
        await asyncio.sleep(11)

    run(stand.clock, main())
    assert stand.results[0][2].error == "RuntimeError: odd"


def test_hanging_targets_hold_back_only_their_own_host() -> None:
    stand = Stand(total=1_000, per_host=10)
    stand.takes_s = lambda one: 1e9 if one > 1_000 else 0.01

    async def main() -> None:
        for one in range(1, 51):
            stand.put(one, _up(), host=f"good {one}", interval_s=5.0)
        for one in range(1_001, 1_101):
            stand.put(one, _up(), host="hangs", interval_s=5.0, timeout_s=10.0)
        await asyncio.sleep(120)

    run(stand.clock, main())
    assert stand.most["hangs"] == 10
    for one in range(1, 51):
        assert 23 <= len(stand.began[one]) <= 25


def test_slow_is_degraded_where_that_is_asked_for() -> None:
    stand = Stand()
    stand.answer = lambda _: Result(total_ms=250.0)

    async def main() -> None:
        stand.put(1, _up(), degraded_after_ms=200.0)
        stand.put(2, _up())
        await asyncio.sleep(40)

    run(stand.clock, main())
    assert stand.statuses(1) == [DEGRADED]
    assert stand.statuses(2) == []
    assert stand.changes[0].reason == "took 250 ms, more than 200 ms"


def test_a_stalled_loop_makes_its_failures_void() -> None:
    stand = Stand()
    stand.takes_s = lambda _: 1e9
    stand.answer = _failed

    async def main() -> None:
        stand.stalls.start(asyncio.get_running_loop())
        stand.put(1, _up(), interval_s=10.0, timeout_s=4.0)
        while not stand.began[1]:
            await asyncio.sleep(0.01)
        freeze(stand.clock, 4.5)
        await asyncio.sleep(1.0)

    run(stand.clock, main())
    assert [result.outcome for _, _, result in stand.results] == [VOID]
    assert "the checker stood still" in stand.results[0][2].error
    assert stand.changes == []
    assert stand.stalls.stalls == 1


def test_a_frozen_minute_makes_thousands_unknown_and_nobody_down() -> None:
    stand = Stand(total=5_000)
    frozen = False
    stand.answer = lambda _: _failed() if frozen else Result(total_ms=1.0)

    async def main() -> None:
        nonlocal frozen
        stand.stalls.start(asyncio.get_running_loop())
        for one in range(1, 2_001):
            stand.put(one, _up(), interval_s=10.0)
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
    stand.answer = _failed
    stand.network_gone = "this checker has no network"

    async def main() -> None:
        stand.put(1, _up(), interval_s=10.0)
        await asyncio.sleep(60)

    run(stand.clock, main())
    assert stand.statuses() == ["unknown"]
    assert {result.outcome for _, _, result in stand.results} == {VOID}


def test_a_clock_that_is_set_moves_neither_schedule_nor_order() -> None:
    stand = Stand()

    async def main() -> None:
        stand.put(1, _up(), interval_s=10.0)
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


def test_nothing_is_said_under_a_lease_that_is_lost_nor_remembered() -> None:
    stand = Stand()
    stand.answer = _failed

    async def main() -> None:
        stand.put(1, _up(), interval_s=10.0)
        stand.epochs.clear()
        await asyncio.sleep(60)
        assert stand.runner.entries[1].memory.status == "up"
        stand.epochs[1] = 1
        await asyncio.sleep(30)

    run(stand.clock, main())
    assert stand.statuses() == ["unknown", "down"]


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


def test_pause_and_resume_are_changes_of_their_own() -> None:
    stand = Stand()

    async def main() -> None:
        stand.put(1, _up())
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
        stand.put(1, _up(), interval_s=86_400.0)
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
    stand.answer = _failed

    async def main() -> None:
        stand.put(1, _up(), interval_s=5.0, fingerprint=1)
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
        stand.put(1, _up())
        stand.runner.in_window(1, "new disks")
        stand.answer = _failed
        await asyncio.sleep(60)
        assert stand.statuses() == ["maintenance"]
        stand.runner.in_window(1, None)
        await asyncio.sleep(30)

    run(stand.clock, main())
    assert stand.statuses() == ["maintenance", "new", "down"]


def test_a_state_that_others_have_moved_is_gone_on_from() -> None:
    stand = Stand()
    stand.answer = _failed

    async def main() -> None:
        stand.put(1, _up())
        stand.runner.rebase(1, Memory(status="down", seq=5, since_us=EPOCH_US))
        stand.runner.rebase(1, Memory(status="up", seq=2, since_us=EPOCH_US))
        await asyncio.sleep(60)
        stand.answer = lambda _: Result(total_ms=1.0)
        await asyncio.sleep(30)

    run(stand.clock, main())
    assert stand.statuses() == ["up"]
    assert stand.changes[0].seq == 6


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


def test_what_cannot_be_probed_is_unknown_and_says_why() -> None:
    stand = Stand()

    async def main() -> None:
        stand.put(1, _up())
        stand.put(1, broken="the secret option 'password' is missing")
        await asyncio.sleep(30)

    run(stand.clock, main())
    assert stand.statuses() == ["unknown"]
    assert stand.changes[0].reason == "misconfigured: the secret option 'password' is missing"


def test_a_probe_that_is_cancelled_before_it_began_gives_its_place_back() -> None:
    stand = Stand(total=1)

    async def main() -> None:
        stand.put(1, _up(), interval_s=10.0)
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


@pytest.mark.parametrize("before_s", [60.0, 3_600.0])
def test_who_is_probed_more_often_from_now_on_was_not_blind_before(before_s: float) -> None:
    stand = Stand()

    async def main() -> None:
        stand.put(1, _up(), interval_s=before_s)
        await asyncio.sleep(before_s * 2.6)
        stand.put(1, interval_s=5.0)
        await asyncio.sleep(60)

    run(stand.clock, main())
    assert stand.changes == []
    assert len(stand.began[1]) >= 12


def test_what_could_not_be_said_while_the_lease_was_in_doubt_is_said_later() -> None:
    stand = Stand()

    async def main() -> None:
        for one in (1, 2):
            stand.put(one, _up())
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


def test_a_heartbeat_that_cannot_be_heard_yet_is_said_to_be_so() -> None:
    stand = Stand()
    passive = dataclasses.replace(stand.kind, probe=None)

    async def main() -> None:
        assert not stand.runner.heard_of(1, EPOCH_US, Result())
        stand.put(1, kind=passive)
        held = dict(stand.epochs)
        stand.epochs.clear()
        assert not stand.runner.heard_of(1, EPOCH_US, Result())
        stand.epochs.update(held)
        assert stand.runner.heard_of(1, EPOCH_US, Result())

    run(stand.clock, main())
    assert stand.statuses(1) == ["up"]


def test_a_change_is_confirmed_at_the_retry_interval_and_no_sooner() -> None:
    stand = Stand()
    stand.answer = _failed

    async def main() -> None:
        for one in range(1, 51):
            stand.put(one, _up(), interval_s=7.0, retry_interval_s=5.0)
        await asyncio.sleep(60)

    run(stand.clock, main())
    for one in range(1, 51):
        first, second, third = stand.began[one][:3]
        assert second - first >= 5.0
        assert third - second >= 5.0


def test_who_waits_for_room_is_not_said_to_be_unseen_each_time() -> None:
    stand = Stand(per_host=1)
    stand.takes_s = lambda _: 4.0

    async def main() -> None:
        for one in range(1, 9):
            stand.put(one, _up(), host="crowded", interval_s=10.0)
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
        stand.put(1, _up(), host="stuck.example", timeout_s=5_000.0)
        while not stand.running["all"]:
            await asyncio.sleep(0.1)
        stand.put(2, _up(), host="stuck.example")
        for _ in range(300):
            await asyncio.sleep(1)
            stand.runner.reconcile(lambda spec: None)
        assert stand.limits.crowded(3) == [("stuck.example", 1)]

    run(stand.clock, main())
    assert stand.statuses(2) == ["unknown"]
    assert "too many targets of stuck.example are due" in stand.changes[0].reason


def test_a_target_that_cannot_even_be_put_costs_no_other() -> None:
    stand = Stand()

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            stand.put(1, _up(), interval_s=0.0)
        stand.put(2, _up())
        await asyncio.sleep(15)

    run(stand.clock, main())
    assert stand.began[2]


@pytest.mark.parametrize("status", ["down", "unknown"])
def test_a_ping_from_before_it_was_down_recovers_nothing(status: str) -> None:
    stand = Stand()
    passive = dataclasses.replace(stand.kind, probe=None)
    since_us = EPOCH_US + 900_000_000
    memory = Memory(status=status, before="down", seq=4, since_us=since_us)
    rules = Rules(failure_threshold=1, success_threshold=1)

    async def main() -> None:
        stand.put(1, memory, kind=passive, rules=rules)
        assert stand.runner.heard_of(1, since_us - 1, Result(total_ms=1.0))
        assert not stand.changes
        assert not stand.results
        assert stand.runner.heard_of(1, since_us + 1, Result(total_ms=1.0))

    run(stand.clock, main())
    assert stand.statuses() == ["up"]


@pytest.mark.parametrize("status", ["new", "paused", "unknown"])
def test_what_it_was_long_ago_makes_no_ping_old(status: str) -> None:
    """`before` is an unknown one's; whatever else has it set has since been forgotten."""
    since_us = EPOCH_US + 900_000_000
    before = "up" if status == "unknown" else "down"
    memory = Memory(status=status, before=before, seq=4, since_us=since_us)
    assert not _is_old_news(memory, since_us - 1, Result(total_ms=1.0))


def test_a_ping_from_before_a_heartbeat_was_resumed_is_heard() -> None:
    stand = Stand()
    passive = dataclasses.replace(stand.kind, probe=None)
    rules = Rules(failure_threshold=1, success_threshold=1)

    async def main() -> None:
        memory = restored(status="down", since_us=EPOCH_US, seq=4)
        stand.put(1, memory, kind=passive, rules=rules)
        stand.put(1, kind=passive, rules=rules, paused=True)
        await asyncio.sleep(60)
        rung_us = stand.time.now_us()
        await asyncio.sleep(1)
        stand.put(1, kind=passive, rules=rules)
        assert stand.runner.heard_of(1, rung_us, Result(total_ms=1.0))

    run(stand.clock, main())
    assert stand.statuses() == ["paused", "new", "up"]
