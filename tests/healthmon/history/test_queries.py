"""What pages and the admin are told, at every state of rolling up."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from math import ceil

import pytest
import time_machine
from django.db import connections
from django.test.utils import CaptureQueriesContext

from healthmon.history import queries
from healthmon.history.models import DAY, HOUR, MINUTE, Rollup
from healthmon.history.rollup import roll_up
from tests.healthmon.history.results import every, sample, store

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "records"])

NOW = datetime(2026, 11, 22, 15, 20, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _now():
    with time_machine.travel(NOW, tick=False):
        yield


def before(**ago: float) -> datetime:
    return NOW - timedelta(**ago)


def roll(now: datetime) -> None:
    assert not roll_up(now, budget_s=600).left


def exact(values: list[float], q: float) -> float:
    return sorted(values)[max(1, ceil(q * len(values))) - 1]


def history(sink, *, start: datetime, seconds: float, target_id: int = 1) -> list[tuple]:
    """Results up to now, stored as they would have been; returns (time, latency)."""
    dice = random.Random(target_id)
    count = int((NOW - start).total_seconds() / seconds)
    found = [(at, round(dice.lognormvariate(3, 1), 3)) for at in every(seconds, count, start=start)]
    store([sample(target_id, at, ms) for at, ms in found], sink)
    return found


@pytest.mark.parametrize(
    ("window", "seconds", "rolled_up"),
    [
        (timedelta(minutes=20), 10, False),
        (timedelta(minutes=20), 10, True),
        (timedelta(hours=5), 60, True),
        (timedelta(days=3), 900, True),
    ],
)
def test_percentiles_are_within_5_percent(sink, window, seconds, rolled_up):
    start = (NOW - window).replace(second=0)
    if window >= timedelta(days=1):
        start = start.replace(hour=0, minute=0)
    elif window >= timedelta(hours=2):
        start = start.replace(minute=0)
    values = [ms for _, ms in history(sink, start=start, seconds=seconds)]
    if rolled_up:
        roll(NOW)
    told = queries.percentiles([1, 2], start, NOW)
    assert told.keys() == {1}
    assert (told[1].count, told[1].failed) == (len(values), 0)
    for q, given in ((0.5, told[1].p50), (0.95, told[1].p95), (0.99, told[1].p99)):
        assert given == pytest.approx(exact(values, q), rel=0.0401)
    points = queries.latency(1, start, NOW)
    assert sum(point.count for point in points) == len(values)
    assert [point.at for point in points] == sorted(point.at for point in points)


def test_at_every_moment_each_result_counts_once(sink):
    """While hours end and are rolled up; the window is taken out to the end of its last hour."""
    found = history(sink, start=before(hours=3), seconds=30)
    for minutes in range(100, -1, -5):
        at = before(minutes=minutes)
        roll(at)
        with time_machine.travel(at, tick=False):
            told = queries.percentiles(range(1, 40), before(hours=5), at)
        end = at.replace(minute=0, second=0) + timedelta(hours=1)
        assert told[1].count == sum(begun < end for begun, _ in found)


def test_a_chart_has_round_stretches_and_counts_failures_and_not_voids(sink):
    start = before(hours=4).replace(minute=0, second=0)
    outcomes = ["ok", "failed", "void", "degraded"]
    store(
        [sample(1, at, 10.0, outcomes[n % 4]) for n, at in enumerate(every(60, 240, start=start))],
        sink,
    )
    roll(NOW)
    points = queries.latency(1, start, start + timedelta(hours=4), points=8)
    assert [point.at for point in points] == every(1800, 8, start=start)
    assert [(p.count, p.failed) for p in points[:-1]] == [(23, 8), (22, 7)] * 3 + [(23, 8)]
    assert points[0].p50 == pytest.approx(10, rel=0.0401)
    assert queries.latency(2, start, NOW) == []
    assert queries.latency(1, NOW, start) == []


def test_a_short_window_is_answered_by_results_themselves(sink):
    history(sink, start=before(minutes=30), seconds=10)
    roll(NOW)
    points = queries.latency(1, before(minutes=10), NOW, points=60)
    assert len(points) == 60
    assert {point.count for point in points} == {1}


def test_what_is_past_its_retention_is_answered_by_the_level_above(sink):
    old = before(days=40).replace(minute=0, second=0)
    Rollup.objects.create(target_id=1, span_s=HOUR, start=old, ok=5, histogram=b"\x40\x05")
    Rollup.objects.create(target_id=1, span_s=MINUTE, start=old, ok=1, histogram=b"\x40\x01")
    (point,) = queries.latency(1, old, old + timedelta(hours=1))
    assert (point.at, point.count) == (old, 5)
    assert queries.percentiles([1], old, old + timedelta(hours=1))[1].count == 5


def test_sparklines_have_a_place_for_every_target_and_stretch(sink):
    store([sample(1, at, 20.0) for at in every(60, 59, start=before(minutes=58))], sink)
    store([sample(2, before(seconds=20), 7.0)], sink)
    store([sample(3, before(minutes=9), 7.0, "failed")], sink)
    roll(before(minutes=2))
    lines = queries.sparklines([1, 2, 3, 4], now=NOW)
    assert {len(line) for line in lines.values()} == {30}
    assert lines[1] == pytest.approx([20.0] * 30)
    assert lines[2] == [None] * 29 + [7.0]
    assert lines[3] == lines[4] == [None] * 30


def test_newest_and_last_results(sink):
    store([sample(n, at) for n in (1, 2) for at in every(10, 30, start=before(minutes=9))], sink)
    last = store([sample(1, before(seconds=5), 99.0)], sink).records[0]
    found = queries.newest([1, 2, 3])
    assert found.keys() == {1, 2}
    assert (found[1].id, found[1].latency_ms) == (last.id, 99.0)
    assert found[1].timestamp == before(seconds=5)
    page = queries.last_results(1, limit=10)
    assert page[0].id == last.id
    following = queries.last_results(1, limit=100, before_id=page[-1].id)
    assert len(page) + len(following) == 31
    assert queries.newest([]) == {}
    assert queries.last_results(9) == []


def test_queries_do_not_grow_with_targets(sink):
    store(
        [sample(n, at) for n in range(1, 30) for at in every(30, 4, start=before(minutes=3))], sink
    )
    roll(NOW)

    def asked(ids: range) -> int:
        with CaptureQueriesContext(connections["records"]) as captured:
            queries.percentiles(ids, before(hours=24), NOW)
            queries.sparklines(ids, now=NOW)
            queries.newest(ids)
        return len(captured)

    assert asked(range(1, 3)) == asked(range(1, 30)) <= 8


def test_too_many_targets_at_once_are_refused():
    with pytest.raises(ValueError, match="5001 targets"):
        queries.percentiles(range(5_001), before(hours=1), NOW)


def test_a_day_is_read_through_all_levels(sink):
    """Yesterday by its day, today by hours, the hour by minutes, the minute by results."""
    history(sink, start=before(days=1, hours=15, minutes=20, seconds=30), seconds=300)
    roll(NOW)
    spans = set(Rollup.objects.values_list("span_s", flat=True))
    assert spans == {MINUTE, HOUR, DAY}
    everything = int(timedelta(days=1, hours=15, minutes=20, seconds=30).total_seconds() / 300)
    told = queries.percentiles([1, *range(50, 300)], before(days=1, hours=15), NOW)
    assert told[1].count == everything
    # What is read from a level is not there twice: without the finer ones of yesterday, the same.
    midnight = NOW.replace(hour=0, minute=0, second=0)
    Rollup.objects.filter(span_s__in=[MINUTE, HOUR], start__lt=midnight).delete()
    told = queries.percentiles([1, *range(50, 300)], before(days=1, hours=15), NOW)
    assert told[1].count == everything


def test_a_late_result_of_an_hour_that_was_rolled_up_counts_at_once_and_once(sink):
    hour, now = NOW.replace(hour=14, minute=0, second=0), NOW.replace(minute=10, second=0)
    store([sample(1, at) for at in every(60, 60, start=hour)], sink)
    roll(now)
    assert Rollup.objects.get(span_s=HOUR).ok == 60
    store([sample(1, hour + timedelta(minutes=58), arrived=now - timedelta(minutes=1))], sink)
    with time_machine.travel(now, tick=False):
        told = queries.percentiles(range(1, 40), hour - timedelta(hours=4), now)
    assert told[1].count == 61
