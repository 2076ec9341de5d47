"""Uptime: against a clock that ticks each second, in few queries, with days of a ribbon."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st

from healthmon.targets.models import Target
from healthmon.truth.models import Flip, TargetState
from healthmon.truth.uptime import Stretch, _walk, ribbon, stretches, sums_between, uptime
from tests.healthmon.truth.cast import make_target, when

STATUSES = ("new", "up", "degraded", "down", "unknown", "paused", "maintenance")
DAY = timedelta(days=1)


def lived(target: Target, *flips: tuple[str, datetime]) -> None:
    """Flips of a target that was new before."""
    status = "new"
    rows = []
    for seq, (to, at) in enumerate(flips, 1):
        rows.append(Flip(target=target, seq=seq, from_status=status, to_status=to, at=at))
        status = to
    Flip.objects.bulk_create(rows)


def ticked(flips: Sequence[tuple[int, str]], first: str, start: int, end: int) -> dict[str, int]:
    """The status at each second, counted: slow, and plain to see right."""
    counts = dict.fromkeys(STATUSES, 0)
    for second in range(start, end):
        status = first
        for at, to in flips:
            if at <= second:
                status = to
        counts[status] += 1
    return counts


lives = st.lists(st.tuples(st.integers(0, 120), st.sampled_from(STATUSES)), max_size=12).map(
    lambda flips: sorted(flips, key=lambda flip: flip[0])
)


@given(flips=lives, first=st.sampled_from(STATUSES), a=st.integers(0, 120), b=st.integers(0, 120))
@settings(max_examples=300, deadline=None)
def test_the_parts_are_those_that_a_clock_counts(
    flips: list[tuple[int, str]], first: str, a: int, b: int
) -> None:
    start, end = min(a, b), max(a, b)
    before = [status for at, status in flips if at <= start]
    inside = [(at * 1_000_000, status) for at, status in flips if start < at < end]
    status = before[-1] if before else first
    found = list(_walk(status, inside, start * 1_000_000, end * 1_000_000))
    total = sums_between(found, start * 1_000_000, end * 1_000_000)
    counts = ticked(flips, first, start, end)
    assert total.up_s == counts["up"]
    assert total.degraded_s == counts["degraded"]
    assert total.down_s == counts["down"]
    assert total.unknown_s == counts["unknown"]
    assert total.excluded_s == counts["new"] + counts["paused"] + counts["maintenance"]
    assert total.known_s + total.unknown_s + total.excluded_s == end - start
    for one, following in itertools.pairwise(found):
        assert one.end_us == following.start_us


@pytest.mark.django_db
def test_uptime_of_a_window_that_begins_in_the_midst() -> None:
    target = make_target()
    lived(
        target,
        ("up", when(0)),
        ("down", when(100)),
        ("up", when(160)),
        ("maintenance", when(200)),
        ("new", when(230)),
        ("unknown", when(240)),
        ("degraded", when(250)),
    )
    one = uptime([target.pk], when(50), when(300))[target.pk]
    assert (one.up_s, one.degraded_s, one.down_s) == (90, 50, 60)
    assert (one.unknown_s, one.excluded_s) == (10, 40)
    assert one.ratio == pytest.approx(140 / 200)
    at_the_edge = uptime([target.pk], when(100), when(160))[target.pk]
    assert (at_the_edge.down_s, at_the_edge.ratio) == (60, 0.0)


@pytest.mark.django_db
def test_nothing_is_known_before_the_first_flip() -> None:
    target = make_target()
    lived(target, ("up", when(100)))
    before = uptime([target.pk], when(0), when(50))[target.pk]
    assert (before.excluded_s, before.ratio) == (50, None)
    assert uptime([target.pk, 999_999], when(0), when(200)).keys() == {target.pk}
    untouched = make_target("other")
    assert uptime([untouched.pk], when(0), when(50))[untouched.pk].excluded_s == 50


@pytest.mark.django_db
def test_a_target_whose_flips_are_pruned_is_what_its_state_says() -> None:
    quiet, lively = make_target("quiet"), make_target("lively")
    TargetState.objects.create(target=quiet, status="up", seq=7, since=when(-1e6))
    assert uptime([quiet.pk], when(0), when(50))[quiet.pk].up_s == 50
    Flip.objects.create(target=lively, seq=9, from_status="up", to_status="down", at=when(20))
    one = uptime([lively.pk], when(0), when(50))[lively.pk]
    assert (one.up_s, one.down_s) == (20, 30)


@pytest.mark.django_db
def test_flips_at_one_moment_count_in_their_order() -> None:
    target = make_target()
    lived(target, ("up", when(0)), ("unknown", when(10)), ("down", when(10)))
    one = uptime([target.pk], when(0), when(20))[target.pk]
    assert (one.up_s, one.unknown_s, one.down_s) == (10, 0, 10)
    assert uptime([target.pk], when(10), when(20))[target.pk].down_s == 10


@pytest.mark.django_db
def test_an_empty_window() -> None:
    target = make_target()
    assert uptime([target.pk], when(10), when(10))[target.pk].ratio is None
    assert uptime([target.pk], when(10), when(0))[target.pk].known_s == 0
    assert uptime([], when(0), when(10)) == {}


@pytest.mark.django_db
def test_a_ribbon_of_days() -> None:
    target = make_target()
    noon = datetime(2026, 3, 10, 12, tzinfo=UTC)
    lived(
        target,
        ("up", noon - 3 * DAY),
        ("down", noon - 2 * DAY - timedelta(hours=13)),  # an hour before a midnight
        ("degraded", noon - 2 * DAY - timedelta(hours=11)),  # an hour after it
        ("up", noon - 2 * DAY),
        ("maintenance", noon - DAY - timedelta(hours=12)),
    )
    days = ribbon([target.pk], days=5, now=noon)[target.pk]
    assert [day.date for day in days] == [date(2026, 3, 6 + n) for n in range(5)]
    assert [day.status for day in days] == ["new", "down", "down", "maintenance", "maintenance"]
    assert [day.down_s for day in days] == [0, 3600, 3600, 0, 0]
    assert days[1].ratio == pytest.approx(11 / 12)
    assert days[3].ratio is None


@pytest.mark.django_db
def test_the_days_of_a_ribbon_add_up_to_its_uptime() -> None:
    target = make_target()
    now = datetime(2026, 3, 10, 12, tzinfo=UTC)
    start = datetime(2026, 2, 20, tzinfo=UTC)
    words = itertools.cycle(["up", "down", "up", "degraded", "unknown", "up", "paused"])
    lived(target, *((next(words), start + n * timedelta(hours=7, minutes=3)) for n in range(60)))
    days = ribbon([target.pk], days=19, now=now)[target.pk]
    total = uptime([target.pk], start, now)[target.pk]
    assert sum(day.down_s for day in days) == total.down_s


@pytest.mark.django_db
def test_a_hundred_targets_over_ninety_days_take_two_queries() -> None:
    now = datetime(2026, 3, 10, 12, tzinfo=UTC)
    Target.objects.bulk_create(Target(name=f"t{n}") for n in range(100))
    targets = list(Target.objects.all())
    rows = []
    for target, seq in itertools.product(targets, range(1, 91)):
        move = ("up", "down") if seq % 2 else ("down", "up")
        at = now - (91 - seq) * DAY
        rows.append(Flip(target=target, seq=seq, from_status=move[0], to_status=move[1], at=at))
    Flip.objects.bulk_create(rows)
    ids = [target.pk for target in targets]
    with CaptureQueriesContext(connection) as queries:
        ribbons = ribbon(ids, days=90, now=now)
    assert len(queries) == 2
    assert len(ribbons) == 100
    with CaptureQueriesContext(connection) as queries:
        found = uptime(ids, now - 90 * DAY, now)
    assert len(queries) == 2
    assert {one.down_s for one in found.values()} == {45 * 86_400}


@pytest.mark.django_db
def test_stretches_have_no_gap() -> None:
    target = make_target()
    lived(target, ("up", when(10)), ("up", when(15)), ("down", when(20)))
    assert [(one.status, one.end_us - one.start_us) for one in seen(target)] == [
        ("new", 10_000_000),
        ("up", 10_000_000),
        ("down", 10_000_000),
    ]


def seen(target: Target) -> list[Stretch]:
    return stretches([target.pk], when(0), when(30))[target.pk]
