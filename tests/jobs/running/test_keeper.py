"""The keeper, a turn at a time: the lease, doubt, loss, cancellations, rescue, a clock set back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError

from jobs.running.keeper import Keeper
from pipeline.runtime.clock import FakeClock

LEASE_S = 9.0


class Table:
    """The runners' rows, and what is asked of them."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.asked: list[tuple[UUID, int]] = []
        self.rescues: list[tuple[str, int, dict[int, int]]] = []
        self.rescued: int | None = 3
        self.pulled: list[float] = []
        self.away = False
        self.figures: list[Mapping[str, Any]] = []

    def _answer(self) -> None:
        if self.away:
            raise OperationalError("Connection refused")

    def join(self, runner: str, *, host: str, pid: int, process: str = "") -> None:
        self._answer()
        self.rows[runner] = 0

    def beat(self, runner: str, figures: Mapping[str, Any]) -> bool:
        self._answer()
        self.figures.append(figures)
        if runner not in self.rows:
            return False
        self.rows[runner] += 1
        return True

    def runners(self) -> dict[str, int]:
        self._answer()
        return dict(self.rows)

    def rescue(self, runner: str, *, beats: int, lost_at: Mapping[int, int]) -> int | None:
        self.rescues.append((runner, beats, dict(lost_at)))
        del self.rows[runner]
        return self.rescued

    def cancels(self, runner: str) -> list[tuple[UUID, int]]:
        self._answer()
        return list(self.asked)

    def pull_back(self, by_s: float) -> int:
        self.pulled.append(by_s)
        return 1


class Told:
    def __init__(self) -> None:
        self.fresh: list[bool] = []
        self.lost = 0
        self.cancelled: list[Sequence[tuple[UUID, int]]] = []
        self.rescued: list[int] = []
        self.busy = True

    def on_lost(self) -> None:
        self.lost += 1


class Turns(Keeper):
    """Without its thread: the test takes the turns."""

    def begin(self) -> None:
        self.runner = "one"
        self._wall_us, self._wall_at = self._clock.time_us(), self._clock.monotonic()

    def turn(self) -> float:
        return self._turn()


class SetClock(FakeClock):
    """A fake clock whose wall time can be set."""

    def __init__(self) -> None:
        super().__init__()
        self.moved_s = 0.0

    def time_us(self) -> int:
        return super().time_us() + round(self.moved_s * 1e6)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def keeper(clock: FakeClock, table: Table, told: Told) -> Turns:
    made = Turns(
        store=table,  # type: ignore[arg-type]
        clock=clock,
        lease_s=LEASE_S,
        host="here",
        pid=7,
        process="p",
        figures=lambda: {"workers": 2},
        attempts=lambda: {1: 8},
        on_lost=told.on_lost,
        on_fresh=told.fresh.append,
        on_cancel=told.cancelled.append,
        on_rescued=told.rescued.append,
        busy=lambda: told.busy,
        retire=lambda: None,
    )
    made.begin()
    return made


def turns(keeper: Turns, clock: FakeClock, seconds: float) -> None:
    until = clock.monotonic() + seconds
    while clock.monotonic() < until:
        clock.advance(min(1.0, until - clock.monotonic()))
        keeper.turn()


def test_it_beats_three_times_a_lease(keeper: Turns, clock: FakeClock, table: Table) -> None:
    keeper.turn()
    turns(keeper, clock, 90)
    assert table.rows == {"one": 30}
    assert table.figures[-1] == {"workers": 2}
    assert keeper.is_fresh()


def test_nothing_is_begun_while_the_database_says_nothing_for_a_lease(
    keeper: Turns, clock: FakeClock, table: Table, told: Told
) -> None:
    keeper.turn()
    table.away = True
    turns(keeper, clock, LEASE_S - 1)
    assert False not in told.fresh
    turns(keeper, clock, 2)
    assert told.fresh[-1] is False
    assert keeper.failing == "nothing listens at its address"
    table.away = False
    turns(keeper, clock, 1)
    assert told.fresh[-1] is True
    assert told.lost == 0, "nobody else could take anything either"
    assert keeper.runner == "one"
    assert keeper.failing == ""


def test_one_that_was_frozen_asks_before_anything_is_begun(
    keeper: Turns, clock: FakeClock, told: Told
) -> None:
    keeper.turn()
    clock.advance(LEASE_S + 1)
    keeper.turn()
    assert told.fresh[-2:] == [False, True]


def test_a_refused_beat_is_a_loss_and_a_new_beginning(
    keeper: Turns, clock: FakeClock, table: Table, told: Told
) -> None:
    keeper.turn()
    del table.rows["one"]
    turns(keeper, clock, LEASE_S)
    assert told.lost == 1
    assert keeper.lost == 1
    assert keeper.runner != "one"
    assert list(table.rows) == [keeper.runner]


def test_the_jobs_of_a_dead_runner_are_rescued_once(
    keeper: Turns, clock: FakeClock, table: Table, told: Told
) -> None:
    keeper.turn()
    table.rows["other"] = 41
    turns(keeper, clock, LEASE_S - 1)
    assert table.rescues == []
    turns(keeper, clock, LEASE_S)
    assert table.rescues == [("other", 41, {1: 8})]
    assert told.rescued == [3]
    assert keeper.rescued == 3


def test_who_was_slower_counts_nothing(
    keeper: Turns, clock: FakeClock, table: Table, told: Told
) -> None:
    keeper.turn()
    table.rows["other"] = 41
    table.rescued = None
    turns(keeper, clock, 2 * LEASE_S)
    assert len(table.rescues) == 1
    assert told.rescued == []


def test_the_living_are_counted(keeper: Turns, clock: FakeClock, table: Table) -> None:
    keeper.turn()
    for number in range(12):
        table.rows["other"] = number
        turns(keeper, clock, 3)
    assert keeper.living == 2


@pytest.mark.parametrize(("other", "rank"), [("!", 1), ("~", 0)])
def test_each_knows_which_of_the_living_it_is(
    keeper: Turns, clock: FakeClock, table: Table, other: str, rank: int
) -> None:
    keeper.turn()
    table.rows["dead"] = 1
    table.rows["!dead"] = 1
    for number in range(12):
        table.rows[other] = number
        turns(keeper, clock, 3)
    assert keeper.share == (rank, 2)


def test_cancellations_are_asked_for_while_anything_runs(
    keeper: Turns, clock: FakeClock, table: Table, told: Told
) -> None:
    table.asked = [(UUID(int=1), 4)]
    told.busy = False
    keeper.turn()
    assert told.cancelled == []
    told.busy = True
    turns(keeper, clock, 1)
    assert told.cancelled == [[(UUID(int=1), 4)]]


def test_a_clock_that_is_set_back_is_told_of_once(
    keeper: Turns, clock: SetClock, table: Table
) -> None:
    keeper.turn()
    clock.moved_s -= 3600
    turns(keeper, clock, 5)
    assert [round(by_s) for by_s in table.pulled] == [3600]
    clock.moved_s += 3600
    turns(keeper, clock, 5)
    assert len(table.pulled) == 1, "forward nothing waits too long"


def test_nothing_is_begun_before_the_first_beat(keeper: Turns, table: Table, told: Told) -> None:
    table.away = True
    keeper.start()
    assert told.fresh[0] is False
    assert keeper.stop(60)
    assert True not in told.fresh
