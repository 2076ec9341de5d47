"""Where batch size and concurrency settle against simulated back ends: bands, on simulated time.

Each run is a few thousand flushes with seeded chance.  The bands say what a user may count on; they
are wider than what is seen, and narrow enough that a rule that is wrong leaves them.
"""

from __future__ import annotations

from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.batching.adaptive import AdaptiveSettings
from tests.pipeline.backends.models import (
    Backend,
    Changing,
    Constant,
    Dropping,
    Jittery,
    Knee,
    LargeOnesAreSlow,
    Refusing,
)
from tests.pipeline.backends.world import Flush, World, sizes, spread, writes

ADAPTIVE = AdaptiveSettings(batch=True, concurrency=True)
SEEDS = range(1, 6)


def settled(world: World, flushes: int = 2000) -> list[Flush]:
    """The later half of a run."""
    return world.run(flushes)[flushes // 2 :]


def between(world: World, from_s: float, to_s: float) -> list[Flush]:
    """The last third of what happened in a stretch of time."""
    part = [one for one in world.history if 1000 + from_s <= one.now < 1000 + to_s]
    return part[len(part) * 2 // 3 :]


# --- the size of a batch -------------------------------------------------------------------------


STEADY = {
    "batch_s": st.floats(0.0001, 0.3),
    "record_s": st.floats(0, 0.001),
    "workers": st.integers(1, 8),
}


@settings(max_examples=50)
@given(**STEADY)
def test_of_200_flushes_of_a_full_load_the_last_100_stay_near_their_median(
    batch_s: float, record_s: float, workers: int
) -> None:
    world = World(Constant(batch_s, record_s), settings=ADAPTIVE, workers=workers)
    assert spread(sizes(world.run(200)[100:])) <= 0.25


@settings(max_examples=50)
@given(records_per_s=st.floats(20, 200_000), **STEADY)
def test_after_200_flushes_of_any_constant_load_the_next_100_stay_near_their_median(
    batch_s: float, record_s: float, workers: int, records_per_s: float
) -> None:
    """What piled up while the batches were small has to be worked off first."""
    world = World(
        Constant(batch_s, record_s),
        settings=ADAPTIVE,
        workers=workers,
        records_per_s=records_per_s,
    )
    world.run(200)
    assert spread(sizes(world.run(100))) <= 0.25


@pytest.mark.parametrize("workers", [1, 4, 8])
@pytest.mark.parametrize(
    ("backend", "lowest", "highest"),
    [
        # A fixed cost of each batch is spread over as many records as may be.
        (Constant(0.05), 10_000, 10_000),
        # Half of the deadline is 4,900 records.
        (Constant(0.01, 0.0001), 4_900, 6_125),
        # However small, a batch takes more than half of the deadline.
        (Constant(0.6, 0.0), 100, 100),
        # 0.01 + n / 10,000 s, times (n / 1,000) squared above a thousand.
        (LargeOnesAreSlow(1000, Constant(0.01, 0.0001)), 1_600, 2_200),
    ],
)
def test_where_the_size_settles_when_there_is_always_more(
    backend: Backend, lowest: int, highest: int, workers: int
) -> None:
    world = World(backend, settings=ADAPTIVE, workers=workers)
    seen = sizes(settled(world, 400))
    assert lowest <= min(seen)
    assert max(seen) <= highest


@pytest.mark.parametrize(
    ("records_per_s", "lowest", "highest"), [(5_000, 1000, 2000), (20, 10, 10)]
)
def test_a_size_fits_what_is_offered(records_per_s: float, lowest: int, highest: int) -> None:
    """0.2 s after its first record a batch is sent, full or not: 1,000 records, or 4."""
    seen = sizes(settled(World(Constant(), settings=ADAPTIVE, records_per_s=records_per_s), 400))
    assert lowest <= min(seen)
    assert max(seen) <= highest


@pytest.mark.parametrize("seed", SEEDS)
def test_jitter_moves_the_size_by_a_step_or_two(seed: int) -> None:
    world = World(Jittery(Constant(0.01, 0.0001), seed=seed), settings=ADAPTIVE, workers=4)
    seen = sizes(settled(world))
    assert min(seen) >= 4_500
    assert max(seen) <= 9_000
    assert spread(seen) <= 0.35


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lost_write_in_a_hundred_costs_the_size_little_and_one_in_ten_all(seed: int) -> None:
    def size_with(share: float) -> float:
        backend = Dropping(Constant(0.01, 0.00001), share=share, seed=seed)
        return median(sizes(settled(World(backend, settings=ADAPTIVE, workers=4))))

    assert size_with(0.01) >= 6_000
    assert size_with(0.1) <= 400


@pytest.mark.parametrize(
    "bad", [Dropping(Constant(0.02), share=1.0), Constant(0.4, 0.0004)], ids=["fails", "slow"]
)
def test_the_size_recovers_with_its_sink(bad: Backend) -> None:
    good = Constant(0.02, 0.00002)
    world = World(Changing(1060, good, Changing(1360, bad, good)), settings=ADAPTIVE)
    while world.now < 1600:
        world.run(20)
    assert min(sizes(between(world, 0, 60))) == 10_000
    assert max(sizes(between(world, 60, 360))) <= 1_700
    assert min(sizes(between(world, 360, 600))) == 10_000


# --- how many writes at once ---------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4, 8])
def test_a_sink_that_bears_all_writers_gets_them_within_200_flushes(workers: int) -> None:
    world = World(Constant(), adaptive_writes=True, workers=workers)
    world.run(200)
    assert set(writes(world.run(2000))) == {workers}


@pytest.mark.parametrize(("refuses_above", "most"), [(1, 2), (3, 4), (8, 9), (12, 13)])
def test_one_more_than_a_sink_takes_is_tried_and_refused(refuses_above: int, most: int) -> None:
    world = World(Refusing(refuses_above, Constant()), adaptive_writes=True, workers=16)
    end = settled(world, 4000)
    assert median(writes(end)) in (refuses_above, refuses_above - 1)
    assert max(writes(end)) <= most
    assert sum(not one.stored for one in end) <= 0.08 * len(end)


@pytest.mark.parametrize("at_once", [1, 2, 4, 8])
def test_writes_settle_at_the_knee(at_once: int) -> None:
    """More would only wait inside the sink; its rate is reached all the same."""
    world = World(Knee(at_once, Constant()), adaptive_writes=True, workers=16)
    end = settled(world, 4000)
    assert at_once <= median(writes(end)) <= at_once + 1
    assert max(writes(end)) <= at_once + 2
    assert world.stored / (world.now - 1000) >= 0.9 * at_once * 500 / 0.05


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("at_once", [2, 4, 8])
def test_writes_settle_around_a_knee_that_is_blurred(at_once: int, seed: int) -> None:
    backend = Jittery(Knee(at_once, Constant()), sigma=0.2, seed=seed)
    world = World(backend, adaptive_writes=True, workers=16)
    end = settled(world, 4000)
    assert at_once - 2 <= median(writes(end)) <= at_once + 1
    assert max(writes(end)) <= at_once + 5
    assert world.stored / (world.now - 1000) >= 0.65 * at_once * 500 / 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_jitter_alone_takes_less_than_half_of_the_writers(seed: int) -> None:
    end = settled(World(Jittery(Constant(), seed=seed), adaptive_writes=True, workers=8), 4000)
    assert median(writes(end)) >= 5


@pytest.mark.parametrize("seed", SEEDS)
def test_a_lost_write_in_a_hundred_costs_few_writers(seed: int) -> None:
    backend = Dropping(Constant(), share=0.01, seed=seed)
    end = settled(World(backend, adaptive_writes=True, workers=8), 4000)
    assert median(writes(end)) >= 7


@pytest.mark.parametrize(
    ("bad", "meanwhile"),
    [(Refusing(2, Constant()), 2), (Constant(0.5), 8)],
    ids=["refuses", "slow-for-all"],
)
def test_writes_recover_with_their_sink(bad: Backend, meanwhile: int) -> None:
    good = Constant()
    world = World(Changing(1060, good, Changing(1260, bad, good)), adaptive_writes=True, workers=8)
    while world.now < 1400:
        world.run(20)
    assert median(writes(between(world, 0, 60))) == 8
    assert median(writes(between(world, 60, 260))) == meanwhile
    assert min(writes(between(world, 260, 400))) == 8


def test_a_batch_in_back_off_keeps_nobody_from_writing() -> None:
    """Every other write fails and waits; what is under way reaches the limit again and again."""
    world = World(Dropping(Constant(), share=0.5), adaptive_writes=True, workers=4)
    end = settled(world, 400)
    assert all(one.under_way <= 4 for one in end)
    assert sum(one.under_way >= min(one.writes, 2) for one in end) > 0.5 * len(end)


# --- both ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "size", "at_once"),
    [
        (Constant(0.05), (10_000, 10_000), (8, 8)),
        (Constant(0.01, 0.0001), (4_900, 6_125), (8, 8)),
        (Refusing(3, Constant(0.02, 0.00002)), (10_000, 10_000), (3, 3)),
        (Knee(3, LargeOnesAreSlow(2000, Constant(0.02, 0.00002))), (3_500, 6_000), (3, 4)),
        (Jittery(Constant(0.05, 0.00002)), (10_000, 10_000), (5, 8)),
    ],
    ids=["fixed-cost", "cost-per-record", "refusing", "two-knees", "jittery"],
)
def test_both_find_their_place_together(
    backend: Backend, size: tuple[int, int], at_once: tuple[int, int]
) -> None:
    end = settled(World(backend, settings=ADAPTIVE, adaptive_writes=True, workers=8), 4000)
    assert size[0] <= median(sizes(end)) <= size[1]
    assert at_once[0] <= median(writes(end)) <= at_once[1]
