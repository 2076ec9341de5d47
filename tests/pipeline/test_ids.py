"""Record ids: unique, ordered, across nodes and clocks that are set back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ids import (
    EPOCH_US,
    NODES,
    RecordIds,
    first_id_at,
    id_at,
    id_run,
    node_of,
    time_of,
)

EVENING = EPOCH_US + 300 * 86_400_000_000

nodes = st.integers(0, NODES - 1)
counts = st.integers(1, 10_000)


class SetClock:
    """A clock that a test sets, also back."""

    def __init__(self, us: int = EVENING) -> None:
        self.us = us

    def time_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        raise AssertionError("ids have no use for it")

    def wait(self, condition: object, timeout_s: float | None) -> None:
        raise AssertionError("ids never wait")


@given(node=nodes, steps=st.lists(st.tuples(st.integers(-10_000_000, 10_000_000), counts)))
def test_runs_never_meet_and_ascend_though_the_clock_is_set_back(
    node: int, steps: list[tuple[int, int]]
) -> None:
    clock = SetClock()
    ids = RecordIds(node=node, clock=clock)
    last = -1
    for shift, count in steps:
        clock.us += shift
        base = ids.take(count)
        assert base > last
        last = id_at(base, count - 1)
        assert last >= base
        assert node_of(base) == node_of(last) == node
        assert 0 < last < 1 << 63


@given(first=nodes, second=nodes, taken=st.lists(st.integers(1, 6000), min_size=1, max_size=3))
def test_two_nodes_never_give_the_same_id(first: int, second: int, taken: list[int]) -> None:
    clock = SetClock()
    given_by = {}
    for node in {first, second}:
        ids = RecordIds(node=node, clock=clock)
        given_by[node] = {one for count in taken for one in id_run(ids.take(count), count)}
        assert len(given_by[node]) == sum(taken)
    if first != second:
        assert not given_by[first] & given_by[second]


@given(base_us=st.integers(0, 10**15), node=nodes, before=counts, count=st.integers(1, 20_000))
def test_id_at_and_id_run_tell_the_same_ascending_ids(
    base_us: int, node: int, before: int, count: int
) -> None:
    ids = RecordIds(node=node, clock=SetClock(EPOCH_US + base_us))
    ids.take(before)
    base = ids.take(count)
    run = list(id_run(base, count))
    assert len(run) == count
    assert run == sorted(set(run))
    middle = count // 2
    assert (run[0], run[middle], run[-1]) == (base, id_at(base, middle), id_at(base, count - 1))
    assert {node_of(one) for one in (run[0], run[middle], run[-1])} == {node}


def test_a_run_within_a_millisecond_is_a_range_and_a_longer_one_steps_over_other_nodes() -> None:
    ids = RecordIds(node=7, clock=SetClock())
    base = ids.take(4096)
    assert id_run(base, 4096) == range(base, base + 4096)
    over = id_run(base, 4097)
    assert isinstance(over, list)
    assert over[-1] == ids.take(1)
    assert time_of(over[-1]) - time_of(over[0]) == 1000


@given(us=st.integers(EPOCH_US, EPOCH_US + (1 << 41) * 1000 - 1001))
def test_the_first_id_of_a_time_bounds_the_ids_of_its_millisecond(us: int) -> None:
    first = first_id_at(us)
    assert time_of(first) == us - (us - EPOCH_US) % 1000
    assert RecordIds(node=NODES - 1, clock=SetClock(us)).take(1) >= first
    assert first_id_at(us + 1000) > id_at(first, 4095)


def test_times_outside_the_range_of_ids_are_clamped() -> None:
    assert first_id_at(0) == first_id_at(EPOCH_US) == 0
    assert first_id_at(10**18) == ((1 << 41) - 1) << 22
    assert RecordIds(node=3, clock=SetClock(0)).take(1) == 3 << 12


@given(not_before=st.integers(EPOCH_US - 5_000, EVENING * 2), node=nodes)
def test_a_node_taken_over_gives_nothing_at_or_below_the_time_it_was_used_until(
    not_before: int, node: int
) -> None:
    ids = RecordIds(node=node, clock=SetClock(), not_before_us=not_before)
    base = ids.take(1)
    assert time_of(base) >= EVENING or time_of(base) > not_before
    if not_before >= EPOCH_US:
        assert time_of(base) > not_before - 1000
        assert base > id_at(first_id_at(not_before), 4095) or time_of(base) > not_before


def test_the_time_reserved_covers_every_id_given() -> None:
    ids = RecordIds(node=0, clock=SetClock())
    base = ids.take(10_000)
    assert ids.reserved_until_us >= time_of(id_at(base, 9_999))
    assert RecordIds(node=0, clock=SetClock(), not_before_us=ids.reserved_until_us).take(1) > id_at(
        base, 9_999
    )


@pytest.mark.parametrize("node", [-1, NODES])
def test_a_node_number_outside_its_ten_bits_is_refused(node: int) -> None:
    with pytest.raises(ValueError, match="node must be between 0 and 1023"):
        RecordIds(node=node)


def test_without_a_clock_ids_follow_the_machine() -> None:
    assert time_of(RecordIds(node=0).take(1)) > EVENING
