"""The rule of the autoscaler, alone: when a worker more, when one less, and where it settles."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.delivery.autoscaler import (
    Autoscaler,
    AutoscaleSettings,
    ScaleStats,
    Step,
    decide,
    reason,
)

SETTINGS = AutoscaleSettings()

PRESSED = ScaleStats(usage=0.9, workers=2, busy=2.0, waiting_batches=20)
SLACK = ScaleStats(usage=0.1, workers=2, idle=2, busy=0.0)


def rule(stats: ScaleStats, settings: AutoscaleSettings = SETTINGS) -> Step:
    return decide(stats, settings, least=1, most=4)


def but(stats: ScaleStats, **changes: object) -> ScaleStats:
    return dataclasses.replace(stats, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("usage", "step"), [(0.0, -1), (0.19, -1), (0.2, 0), (0.5, 0), (0.8, 0), (0.81, 1), (1.5, 1)]
)
def test_what_is_held_decides_between_the_two_thresholds(usage: float, step: Step) -> None:
    idle = 2 if usage < 0.5 else 0
    assert rule(ScaleStats(usage=usage, workers=2, idle=idle, busy=2.0 - idle)) == step


@pytest.mark.parametrize(("waiting", "step"), [(4, 0), (5, 1)])
def test_full_batches_that_wait_count_by_worker(waiting: int, step: Step) -> None:
    """Long before a large capacity is four fifths full."""
    assert rule(ScaleStats(usage=0.3, workers=2, busy=2.0, waiting_batches=waiting)) == step


def test_full_batches_do_not_count_where_the_settings_say_so() -> None:
    only_usage = AutoscaleSettings(up_batches=0)
    waiting = ScaleStats(usage=0.3, workers=2, busy=2.0, waiting_batches=1000)
    assert rule(waiting, only_usage) == 0
    assert rule(but(waiting, usage=0.81), only_usage) == 1


def test_the_number_stays_between_the_least_and_the_most() -> None:
    assert rule(but(PRESSED, workers=4, busy=4.0)) == 0
    assert rule(but(SLACK, workers=1, idle=1)) == 0
    assert rule(but(SLACK, workers=0, idle=0)) == 1, "fewer than the least, whatever is held"
    assert rule(but(PRESSED, workers=5, busy=5.0)) == -1, "more than the most, whatever is held"


@pytest.mark.parametrize("stats", [PRESSED, SLACK, but(SLACK, workers=9), but(PRESSED, workers=0)])
@pytest.mark.parametrize(
    "why", [{"draining": True}, {"breaker_open": True}, {"deliverable": False}]
)
def test_nothing_changes_in_a_drain_at_an_open_breaker_or_while_paused(
    stats: ScaleStats, why: dict[str, bool]
) -> None:
    assert rule(stats) != 0
    assert rule(but(stats, **why)) == 0


@pytest.mark.parametrize("stats", [PRESSED, SLACK])
def test_a_change_is_given_time_to_work(stats: ScaleStats) -> None:
    assert rule(but(stats, since_change_s=1.99)) == 0
    assert rule(but(stats, since_change_s=2.0)) != 0


def test_where_a_worker_is_idle_another_would_be_too() -> None:
    """What is held waits for its time, or for the sink's limit of writes at once."""
    assert rule(but(PRESSED, idle=1)) == 0


@pytest.mark.parametrize(("busy", "step"), [(0.0, -1), (0.8, -1), (0.9, 0), (2.0, 0)])
def test_a_worker_leaves_only_if_the_others_can_do_its_work(busy: float, step: Step) -> None:
    """A load that just keeps two workers busy holds nearly nothing, and needs both."""
    assert rule(but(SLACK, busy=busy)) == step


def test_no_worker_leaves_while_a_full_batch_waits() -> None:
    assert rule(but(SLACK, waiting_batches=1)) == 0


looks = st.builds(
    ScaleStats,
    usage=st.floats(0, 2),
    workers=st.integers(0, 12),
    idle=st.integers(0, 12),
    busy=st.floats(0, 12),
    waiting_batches=st.integers(0, 100),
    draining=st.booleans(),
    breaker_open=st.booleans(),
    deliverable=st.booleans(),
    since_change_s=st.floats(0, 10),
)


@given(stats=looks, least=st.integers(1, 5), more=st.integers(0, 5))
def test_one_step_never_leads_out_of_the_limits_nor_has_no_reason(
    stats: ScaleStats, least: int, more: int
) -> None:
    most = least + more
    step = decide(stats, SETTINGS, least=least, most=most)
    assert step in (-1, 0, 1)
    if least <= stats.workers <= most:
        assert least <= stats.workers + step <= most
    else:
        assert step * (least - stats.workers) >= 0, "a step goes towards the limits"
    held = stats.draining or stats.breaker_open or not stats.deliverable
    assert not (step and (held or stats.since_change_s < SETTINGS.cooldown_s))
    assert bool(reason(step, stats, SETTINGS)) == bool(step)


@given(stats=looks, fuller=st.floats(0, 1))
def test_more_that_is_held_never_means_fewer_workers(stats: ScaleStats, fuller: float) -> None:
    assert rule(but(stats, usage=stats.usage + fuller)) >= rule(stats)


def test_the_reason_tells_the_figures_that_decided() -> None:
    assert reason(1, but(PRESSED, waiting_batches=0), SETTINGS) == (
        "90% of the room is held, more than 80%"
    )
    assert reason(1, but(PRESSED, usage=0.01, workers=1), SETTINGS) == (
        "20 full batches wait for 1 worker; 1% of the room is held"
    )
    assert reason(-1, but(SLACK, busy=0.25), SETTINGS) == (
        "10% of the room is held, less than 20%; of 2 workers 0.2 were busy"
    )
    assert reason(1, ScaleStats(usage=0.0, workers=1), SETTINGS) == "1 worker, fewer than the least"
    assert reason(-1, ScaleStats(usage=1.0, workers=9), SETTINGS) == "9 workers, more than the most"


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"interval_s": 0.0}, "interval_s must be positive"),
        ({"up": 0.2}, r"0 <= down \([-0-9.]+\) < up \([0-9.]+\) <= 1"),
        ({"up": 1.1}, r"0 <= down \([-0-9.]+\) < up \([0-9.]+\) <= 1"),
        ({"down": -0.1}, r"0 <= down \([-0-9.]+\) < up \([0-9.]+\) <= 1"),
        ({"up_batches": -1}, "up_batches must not be negative"),
        ({"cooldown_s": -1.0}, "cooldown_s must not be negative"),
    ],
)
def test_settings_are_checked_when_made(wrong: dict[str, float], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        AutoscaleSettings(**wrong)  # type: ignore[arg-type]


# --- what it remembers ---------------------------------------------------------------------


def test_looks_are_due_by_the_interval_and_changes_are_dated() -> None:
    scaler = Autoscaler(SETTINGS, 100.0)
    assert scaler.due_s(100.25) == 0.75
    assert scaler.since_change_s(100.0) == float("inf")
    assert scaler.due_s(102.0) == 0.0
    scaler.busy(1, 102.0)
    scaler.changed(102.0)
    assert (scaler.due_s(102.5), scaler.since_change_s(102.5)) == (0.5, 0.5)
    scaler.configure(AutoscaleSettings(interval_s=10.0))
    assert scaler.due_s(102.5) == 9.5


def test_how_busy_the_workers_were_is_an_average_since_the_last_look() -> None:
    scaler = Autoscaler(SETTINGS, 0.0)
    assert scaler.busy(2, 4.0) == 2.0, "nobody waited"
    scaler.rests(1, 5.0)
    scaler.rests(1, 6.0)
    scaler.rests(-2, 7.0)
    assert scaler.busy(2, 8.0) == 2 - 3 / 4
    scaler.rests(2, 8.0)
    assert scaler.busy(2, 10.0) == 0.0
    assert scaler.busy(2, 10.0) == 0.0, "no time has gone by: as it is at this moment"
    assert scaler.busy(2, 12.0) == 0.0, "they wait still"


# --- where it settles ----------------------------------------------------------------------


@dataclasses.dataclass
class Model:
    """A queue of `room` records, filled at a rate, emptied by workers of equal speed.

    A second is one look; what does not fit is refused.
    """

    room: float = 1500.0
    per_worker: float = 150.0
    workers: int = 1
    held: float = 0.0
    refused: float = 0.0
    most: int = 10

    def run(self, rate: Callable[[int], float], seconds: int) -> Iterator[int]:
        settings = AutoscaleSettings(up_batches=0, cooldown_s=2.0)
        changed_s = 0.0
        for second in range(seconds):
            offered = self.held + rate(second)
            done = min(offered, self.workers * self.per_worker)
            left = offered - done
            self.refused += max(0.0, left - self.room)
            self.held = min(left, self.room)
            busy = done / self.per_worker
            stats = ScaleStats(
                usage=self.held / self.room,
                workers=self.workers,
                idle=0 if self.held else self.workers - int(busy),
                busy=busy,
                waiting_batches=int(self.held // 50),
                since_change_s=changed_s,
            )
            step = decide(stats, settings, least=1, most=self.most)
            changed_s = 1.0 if step else changed_s + 1.0
            self.workers += step
            yield self.workers


def test_a_constant_load_finds_as_many_workers_as_it_needs_and_stays_there() -> None:
    model = Model()
    numbers = list(model.run(lambda second: 800.0, 300))
    settled = set(numbers[-200:])
    assert len(settled) == 1, "no worker comes and goes"
    assert settled <= {6, 7}, "800 a second at 150 each, and one that emptied the queue"
    assert model.held == 0


def test_a_load_that_comes_and_goes_is_followed_up_and_down() -> None:
    model = Model()
    numbers = list(model.run(lambda second: 1000.0 if second < 100 else 20.0, 200))
    assert max(numbers[:100]) in (7, 8)
    assert numbers[99] >= 7
    assert numbers[-1] == 1
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    assert set(steps) <= {-1, 0, 1}
    after = numbers[100:]
    assert after == sorted(after, reverse=True), "never up again"


def test_more_than_all_can_do_takes_all_there_may_be() -> None:
    model = Model(most=4)
    numbers = list(model.run(lambda second: 5000.0, 60))
    assert numbers[-1] == 4
    assert numbers == sorted(numbers)


def test_growth_begins_before_anything_is_refused() -> None:
    """A load that rises slowly enough is never refused."""
    model = Model()
    for _ in model.run(lambda second: min(1200.0, 100.0 + 20.0 * second), 200):
        pass
    assert model.refused == 0
    assert model.workers >= 8
