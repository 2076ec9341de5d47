"""Forgetting what is past its time, on either database."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connections

from control.models import PipelineSample, Process
from control.partitions import merged, upkeep
from ingest.models import AuditEvent, Counter, CounterPoint, LogRecord
from tests.commands.stored import store_events, store_logs

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def now():
    return datetime.now(UTC)


@pytest.fixture
def records(now):
    """Three days' records, and events of a day that is past its time."""
    forget_other_days(now)
    for days in (0, 6, 8, 40):
        store_logs(now - timedelta(days=days), [{"days": days}] * 3)
    store_events(now - timedelta(days=400), [{}] * 2)
    yield
    forget_other_days(now)


def forget_other_days(now):
    """Rows go with a test, their day's partition stays: another test's would be counted here."""
    if upkeep.partitions("ingest_logrecord"):
        for table in ("ingest_logrecord", "ingest_auditevent"):
            upkeep.drop_before(table, now.date() - timedelta(days=3))


def prune(*arguments):
    out = StringIO()
    call_command("prune", "--json", *arguments, stdout=out)
    return json.loads(out.getvalue())


def days_left():
    return {payload["days"] for payload in LogRecord.objects.values_list("payload", flat=True)}


def test_old_records_go_and_younger_ones_stay(records):
    report = prune("--days", "7")
    assert days_left() == {0, 6}
    assert LogRecord.objects.count() == 6
    assert AuditEvent.objects.count() == 0
    logs = report["records"]["ingest_logrecord"]
    if connections["records"].vendor == "postgresql":
        assert len(logs["partitions"]) == 2
    else:
        assert logs["rows"] == 6
    assert prune("--days", "7")["records"]["ingest_logrecord"]["partitions"] == []
    assert LogRecord.objects.count() == 6


def test_points_of_counters_go_and_the_counters_stay(records, now):
    moments = {days: now - timedelta(days=days) for days in (0, 6, 8, 40)}
    Counter.objects.create(
        key="k", tenant="default", name="n", value=4, increments=4, first_at=moments[40],
        last_at=now,
    )  # fmt: skip
    CounterPoint.objects.bulk_create(
        CounterPoint(counter="k", minute=moment, added=1, increments=1)
        for moment in moments.values()
    )
    dry = prune("--days", "7", "--dry-run")
    assert dry["records"]["ingest_counterpoint"]["rows"] == 2
    assert CounterPoint.objects.count() == 4
    upkeep.prune_rows(today=now.date())  # 30 days, by the setting
    assert CounterPoint.objects.count() == 3
    assert prune("--days", "7")["records"]["ingest_counterpoint"]["rows"] == 1
    kept = set(CounterPoint.objects.values_list("minute", flat=True))
    assert kept == {moments[0], moments[6]}
    assert Counter.objects.get().value == 4


def test_many_old_points_go_in_short_transactions(now):
    old = (now - timedelta(days=50)).replace(second=0, microsecond=0)
    CounterPoint.objects.bulk_create(
        CounterPoint(counter=f"k{n}", minute=old + timedelta(minutes=n), added=1, increments=1)
        for n in range(2_500)
    )
    (table,) = merged.ending()
    chunks: list[int] = []
    assert merged.delete_before(table, now.date(), progress=chunks.append) == 2_500
    assert chunks == [1_000, 1_000, 500]


def test_without_days_the_setting_decides(records):
    prune()
    assert days_left() == {0, 6, 8}


def test_a_dry_run_deletes_nothing_and_says_what_would_go(records, now):
    process = Process.objects.create(
        role="server", host="h", pid=1, version="0", log_id="l", started_at=now,
        last_seen_at=now - timedelta(days=99), stopped_at=now - timedelta(days=99),
    )  # fmt: skip
    dry = prune("--days", "7", "--dry-run")
    assert LogRecord.objects.count() == 12
    assert Process.objects.filter(pk=process.pk).exists()
    wet = prune("--days", "7")
    assert dry["records"].keys() == wet["records"].keys()
    assert (
        dry["records"]["ingest_logrecord"]["partitions"]
        == wet["records"]["ingest_logrecord"]["partitions"]
    )
    assert dry["control"] == wet["control"]
    assert wet["control"]["processes"] >= 1
    assert not Process.objects.filter(pk=process.pk).exists()


def test_old_samples_go(now):
    process = Process.objects.create(
        role="server", host="h", pid=1, version="0", log_id="l", started_at=now, last_seen_at=now
    )
    common = {"process": process, "key": "p", "name": "p", "interval_s": 5}
    PipelineSample.objects.create(at=now - timedelta(days=9), **common)
    young = PipelineSample.objects.create(at=now, **common)
    assert prune()["control"]["samples"] == 1
    assert list(PipelineSample.objects.all()) == [young]


def test_people_read_sentences(records):
    out = StringIO()
    call_command("prune", "--days", "7", stdout=out)
    assert "ingest_logrecord" in out.getvalue()
    assert "deleted" in out.getvalue()
