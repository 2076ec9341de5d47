"""What of the history is forgotten, and what never is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings

from healthmon.history import retention
from healthmon.history.models import DAY, HOUR, MINUTE, ProbeResult, Rollup, RollupDue
from healthmon.history.retention import first_kept, forget_old
from healthmon.targets.models import Target
from healthmon.truth.models import Flip, Incident
from tests.healthmon.history.results import START, sample, store

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "records"])

NOW = START + timedelta(hours=5)


@pytest.fixture
def target() -> Target:
    return Target.objects.create(name="web", kind="http", address="http://127.0.0.1")


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


@pytest.mark.parametrize("span_s", [MINUTE, HOUR, DAY])
def test_each_level_has_days_of_its_own(target, span_s):
    kept = retention.kept_days(span_s)
    first = datetime.fromtimestamp(first_kept(span_s, NOW), UTC)
    assert first == NOW.replace(hour=0) - timedelta(days=kept)
    Rollup.objects.bulk_create(
        Rollup(target_id=target.pk, span_s=span_s, start=start)
        for start in (first - timedelta(days=9), first - timedelta(seconds=span_s), first, NOW)
    )
    assert forget_old(NOW).rollups == 2
    assert set(Rollup.objects.values_list("start", flat=True)) == {first, NOW}


def test_marks_go_with_the_results_unless_they_are_due():
    old = ago(settings.COLLECTOR.monitoring.results_days + 2)
    for start, due in ((old, False), (old + timedelta(minutes=1), True), (NOW, False)):
        RollupDue.objects.create(span_s=MINUTE, start=start, due=due, touched_at=start)
    assert forget_old(NOW).marks == 1
    assert set(RollupDue.objects.values_list("start", flat=True)) == {
        old + timedelta(minutes=1),
        NOW,
    }


def flip(target: Target, seq: int, days: float, to: str = "down") -> Flip:
    return Flip.objects.create(target=target, seq=seq, from_status="up", to_status=to, at=ago(days))


def test_flips_go_but_for_the_one_that_tells_the_status_at_the_cut(target):
    kept = settings.COLLECTOR.monitoring.flips_days
    for seq, days in enumerate([kept + 30, kept + 20, kept + 10, kept - 1, 3], 1):
        flip(target, seq, days)
    quiet = Target.objects.create(name="quiet")
    flip(quiet, 1, kept + 300)
    assert forget_old(NOW).flips == 2
    assert list(target.flips.order_by("seq").values_list("seq", flat=True)) == [3, 4, 5]
    assert quiet.flips.count() == 1


def test_incidents_go_when_they_have_been_over_for_long(target):
    kept = settings.COLLECTOR.monitoring.flips_days
    for seq, (opened, closed) in enumerate(
        [(kept + 9, kept + 8), (kept + 9, kept - 1), (kept + 9, None)], 1
    ):
        Incident.objects.create(
            target=target, opened_seq=seq, opened_at=ago(opened),
            closed_at=None if closed is None else ago(closed),
        )  # fmt: skip
    assert forget_old(NOW).incidents == 1
    assert set(Incident.objects.values_list("opened_seq", flat=True)) == {2, 3}


def test_the_history_of_deleted_targets_goes(sink, target):
    gone = Target.objects.create(name="gone")
    store([sample(target.pk, START), sample(gone.pk, START), sample(gone.pk, START)], sink)
    for target_id in (target.pk, gone.pk):
        Rollup.objects.create(target_id=target_id, span_s=DAY, start=START.replace(hour=0))
    assert forget_old(NOW).results == 0
    gone_id = gone.pk
    gone.delete()
    forgotten = forget_old(NOW)
    assert (forgotten.results, forgotten.rollups) == (2, 1)
    for model in (ProbeResult, Rollup):
        assert set(model.objects.values_list("target_id", flat=True)) == {target.pk}
    assert gone_id != target.pk


def test_a_call_deletes_in_chunks_and_for_a_bounded_time(target, monkeypatch):
    monkeypatch.setattr(retention, "CHUNK_ROWS", 10)
    Rollup.objects.bulk_create(
        Rollup(target_id=target.pk, span_s=MINUTE, start=ago(90) + timedelta(minutes=n))
        for n in range(35)
    )
    turns = iter([True, True, False])
    assert forget_old(NOW, go_on=lambda: next(turns, False)).rollups == 20
    assert forget_old(NOW).rollups == 15


def test_both_tasks_are_registered():
    from healthmon.checker import housekeeping

    tasks = {task.name: task.interval_s for task in housekeeping._tasks.values()}
    assert tasks["roll-up"] == 10.0
    assert tasks["history-retention"] <= 3_600.0
