"""Objectives and the alerts of budgets that burn: each fires once, and clears."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext

from healthmon.checker import housekeeping
from healthmon.targets.models import Target
from healthmon.truth import slo
from healthmon.truth.models import BurnAlert, Flip, TargetState
from tests.healthmon.truth.cast import make_target

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


@pytest.fixture
def told() -> Iterator[list[slo.BurnEvent]]:
    heard: list[slo.BurnEvent] = []
    others = slo._hooks.items()
    for name, _ in others:
        slo.unregister_burn_hook(name)
    slo.register_burn_hook(heard.extend, name="test")
    yield heard
    slo.unregister_burn_hook("test")
    for name, hook in others:
        slo.register_burn_hook(hook, name=name)


def aimed(percent: float | None = 99.9, days: int = 30, name: str = "web") -> Target:
    """Up for a hundred days."""
    target = make_target(name, slo_percent=percent, slo_days=days)
    flipped(target, ("new", "up", NOW - 100 * DAY))
    return target


def flipped(target: Target, *flips: tuple[str, str, datetime]) -> None:
    for seq, (before, to, at) in enumerate(flips, target.flips.count() + 1):
        Flip.objects.create(target=target, seq=seq, from_status=before, to_status=to, at=at)
        TargetState.objects.update_or_create(
            target=target, defaults={"status": to, "seq": seq, "since": at}
        )


def outage(target: Target, begin: datetime, end: datetime | None = None) -> None:
    flipped(target, ("up", "down", begin))
    if end is not None:
        flipped(target, ("down", "up", end))


def test_an_objective_and_what_is_left_of_its_budget() -> None:
    target = aimed(99.9)
    outage(target, NOW - 10 * DAY, NOW - 10 * DAY + 600 * timedelta(seconds=1))
    one = slo.objective([target.pk], NOW)[target.pk]
    assert one.percent == 99.9
    assert one.budget_s == pytest.approx(0.001 * 30 * 86_400)
    assert one.left_s == pytest.approx(2_592 - 600)
    assert one.achieved == pytest.approx(100 * (1 - 600 / (30 * 86_400)))
    assert one.left_s >= 0
    assert (one.burn_1h, one.burn_6h, one.burn_3d) == (0, 0, 0)


def test_a_budget_that_is_overdrawn_and_rates_of_burning() -> None:
    target = aimed(99.0, days=1)
    outage(target, NOW - 30 * MINUTE)
    one = slo.objective([target.pk], NOW)[target.pk]
    assert one.left_s == pytest.approx(864 - 1_800)
    assert one.left_s < 0
    assert one.burn_1h == pytest.approx(50)
    assert one.burn_6h == pytest.approx(50 / 6)
    assert one.burn_3d == pytest.approx(50 / 72)


def test_what_has_no_objective_has_no_answer() -> None:
    target = aimed(None)
    with CaptureQueriesContext(connection) as queries:
        assert slo.objective([target.pk], NOW) == {}
    assert len(queries) == 1


def test_a_target_that_nothing_is_known_of_has_its_whole_budget() -> None:
    target = make_target(slo_percent=99.0)
    one = slo.objective([target.pk], NOW)[target.pk]
    assert one.achieved is None
    assert one.left_s == one.budget_s


def test_maintenance_and_unknown_use_no_budget() -> None:
    target = aimed()
    flipped(
        target,
        ("up", "maintenance", NOW - 5 * HOUR),
        ("maintenance", "new", NOW - 3 * HOUR),
        ("new", "unknown", NOW - 2 * HOUR),
    )
    one = slo.objective([target.pk], NOW)[target.pk]
    assert one.left_s == one.budget_s
    assert slo.burning(NOW) == []


@pytest.mark.parametrize(
    ("minutes_down", "paces"),
    [
        (0.5, []),
        (0.8, []),  # less than 14.4 times over the hour
        (0.9, ["fast"]),
        (2.1, ["fast"]),  # 5.8 times over six hours
        (2.3, ["fast", "slow"]),
    ],
)
def test_the_marks_of_both_paces(minutes_down: float, paces: list[str]) -> None:
    target = aimed(99.9)
    outage(target, NOW - minutes_down * MINUTE)
    assert [burn.pace for burn in slo.burning(NOW)] == paces
    assert all(burn.target_id == target.pk for burn in slo.burning(NOW))


def test_what_is_over_does_not_fire() -> None:
    """Ten minutes down, half an hour ago: the hour says so, the last minutes do not."""
    target = aimed(99.9)
    outage(target, NOW - 45 * MINUTE, NOW - 35 * MINUTE)
    assert slo.objective([target.pk], NOW)[target.pk].burn_1h > 14.4
    assert slo.burning(NOW) == []


def test_an_alert_fires_once_and_clears(told: list[slo.BurnEvent]) -> None:
    target = aimed(99.9)
    outage(target, NOW - 2 * MINUTE)
    for minute in range(3):
        slo.judge_burns(NOW + minute * MINUTE)
    assert [(one.alert.pace, one.fired) for one in told] == [("fast", True), ("slow", True)]
    assert told[0].target == target
    flipped(target, ("down", "up", NOW + 3 * MINUTE))
    told.clear()
    # The last minutes are quiet, the hour is not: another failure is still the same alert.
    assert slo.judge_burns(NOW + 20 * MINUTE) == []
    slo.judge_burns(NOW + 70 * MINUTE)
    assert [(one.alert.pace, one.fired) for one in told] == [("fast", False)]
    slo.judge_burns(NOW + 7 * HOUR)
    assert [(one.alert.pace, one.fired) for one in told] == [("fast", False), ("slow", False)]
    assert not BurnAlert.objects.filter(cleared_at=None).exists()
    outage(target, NOW + 30 * HOUR)
    slo.judge_burns(NOW + 30 * HOUR + 2 * MINUTE)
    assert BurnAlert.objects.filter(pace="fast").count() == 2


def test_an_objective_that_is_given_up_clears_its_alerts(told: list[slo.BurnEvent]) -> None:
    target = aimed(99.9)
    outage(target, NOW - 30 * MINUTE)
    slo.judge_burns(NOW)
    Target.objects.filter(pk=target.pk).update(slo_percent=None)
    told.clear()
    slo.judge_burns(NOW)
    assert [one.fired for one in told] == [False, False]


def test_a_hook_that_fails_leaves_no_alert(told: list[slo.BurnEvent]) -> None:
    def broken(events: Sequence[slo.BurnEvent]) -> None:
        raise RuntimeError("no")

    outage(aimed(99.9), NOW - 30 * MINUTE)
    slo.register_burn_hook(broken, name="broken")
    try:
        with pytest.raises(RuntimeError):
            slo.judge_burns(NOW)
    finally:
        slo.unregister_burn_hook("broken")
    assert not BurnAlert.objects.exists()
    assert len(slo.judge_burns(NOW)) == 2


def test_a_second_alert_of_the_same_kind_is_refused_by_the_database() -> None:
    target = aimed()
    BurnAlert.objects.create(target=target, pace="fast", fired_at=NOW, burn=20)
    with pytest.raises(IntegrityError):
        BurnAlert.objects.create(target=target, pace="fast", fired_at=NOW, burn=20)


def test_quiet_targets_cost_nothing() -> None:
    Target.objects.bulk_create(Target(name=f"t{n}", slo_percent=99.9) for n in range(300))
    with CaptureQueriesContext(connection) as queries:
        assert slo.judge_burns(NOW) == []
    assert len(queries) <= 8


def test_the_task_is_registered() -> None:
    [task] = [one for one in housekeeping._tasks.values() if one.name == "burn rates"]
    assert task.interval_s == 60
    assert task.run() == []
