"""The heap of times, the grid, and the lines before the limits."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from healthmon.checker.limits import Limits, Place
from healthmon.checker.schedule import Schedule
from healthmon.targets.phase import next_on_grid, phase_of


def test_targets_come_out_in_the_order_of_their_times() -> None:
    schedule = Schedule()
    for target_id, due in ((1, 5.0), (2, 3.0), (3, 4.0)):
        schedule.put(target_id, due)

    assert schedule.next_s() == 3.0
    assert schedule.take(4.5, 10) == [(2, 3.0), (3, 4.0)]
    assert schedule.take(4.5, 10) == []
    assert schedule.next_s() == 5.0


def test_another_time_replaces_the_first() -> None:
    schedule = Schedule()
    schedule.put(1, 5.0)
    schedule.put(1, 9.0)

    assert schedule.take(6.0, 10) == []
    assert schedule.take(9.0, 10) == [(1, 9.0)]


def test_a_removed_target_is_never_due() -> None:
    schedule = Schedule()
    schedule.put(1, 5.0)
    schedule.remove(1)

    assert schedule.next_s() is None
    assert schedule.take(6.0, 10) == []


def test_no_more_are_taken_than_asked_for() -> None:
    schedule = Schedule()
    for target_id in range(10):
        schedule.put(target_id, float(target_id))

    assert len(schedule.take(100.0, 3)) == 3
    assert len(schedule) == 7


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 50)), max_size=400))
def test_the_schedule_is_a_map_of_last_times(puts: list[tuple[int, int]]) -> None:
    schedule, model = Schedule(), {}
    for target_id, due in puts:
        schedule.put(target_id, float(due))
        model[target_id] = float(due)

    taken = schedule.take(100.0, 1000)
    assert sorted(taken) == sorted(model.items())
    assert [due for _, due in taken] == sorted(model.values())


def test_thousands_of_targets_that_follow_one_another_are_spread_evenly() -> None:
    tenths = [0] * 10
    for target_id in range(1, 5001):
        tenths[int(phase_of(target_id) * 10)] += 1
    assert min(tenths) > 480
    assert max(tenths) < 520


@given(
    st.integers(1, 10**9),
    st.floats(1, 86_400, allow_nan=False),
    st.floats(0, 4e9, allow_nan=False),
)
def test_the_grid_goes_on_by_intervals_and_never_back(
    target_id: int, interval: float, after: float
) -> None:
    first = next_on_grid(target_id, interval, after)
    assert first > after - 1e-3
    assert first - after <= interval + 1e-3
    assert abs(next_on_grid(target_id, interval, first + 0.01) - first - interval) < 1e-2


def _limits_run(seed: int, *, total: int, per_host: int, per_group: int) -> None:
    """Places come and go at random: no limit is passed, and everybody gets a turn."""
    chance = random.Random(seed)
    limits = Limits(total=total, per_host=per_host, per_group=per_group)
    running: list[Place] = []
    begun: set[int] = set()
    for number in range(200):
        place = Place(number, 0.0, f"host {chance.randrange(4)}", chance.randrange(4))
        if limits.enter(place):
            running.append(place)
            begun.add(number)
        while running and chance.random() < 0.4:
            _leave(limits, running, begun, chance)
            _check(running, total, per_host, per_group)
    while running:
        _leave(limits, running, begun, chance)
        _check(running, total, per_host, per_group)
    assert begun == set(range(200))
    assert limits.running == limits.parked == 0
    assert not limits._lines


def _leave(limits: Limits, running: list[Place], begun: set[int], chance: random.Random) -> None:
    started = limits.leave(running.pop(chance.randrange(len(running))))
    running.extend(started)
    begun.update(place.target_id for place in started)


def _check(running: list[Place], total: int, per_host: int, per_group: int) -> None:
    assert len(running) <= total
    for host in {place.host for place in running}:
        assert not per_host or sum(place.host == host for place in running) <= per_host
    for group in {place.group for place in running if place.group}:
        assert not per_group or sum(place.group == group for place in running) <= per_group


@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(0, 4), st.integers(0, 4))
def test_no_limit_is_passed_and_nobody_is_forgotten(
    seed: int, total: int, per_host: int, per_group: int
) -> None:
    _limits_run(seed, total=total, per_host=per_host, per_group=per_group)


def test_a_full_host_holds_back_its_own_alone() -> None:
    limits = Limits(total=100, per_host=2, per_group=0)
    slow = [Place(n, 0.0, "slow") for n in range(5)]
    assert [limits.enter(place) for place in slow] == [True, True, False, False, False]
    assert limits.enter(Place(9, 0.0, "fast"))
    assert limits.parked == 3
    assert limits.leave(slow[0]) == [slow[2]]
