"""The internal sink `results`: each result once, with the marks of its minutes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connections

from control.partitions import upkeep
from control.partitions.tables import listing
from control.ports.tables import table_for, tables
from healthmon.history import sink as results_sink
from healthmon.history import table
from healthmon.history.models import MINUTE, ProbeResult, RollupDue
from healthmon.history.records import PROBE, record_of, stored_of
from healthmon.probes.kind import Result
from pipeline.errors import PartialFailure, SinkFault
from pipeline.settings import PipelineSettings
from sinks.internal import internal_sinks, internal_types
from tests.healthmon.history.results import START, batch_of, every, sample, store
from tests.sinks.records import batch, records

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "records"])

ON_POSTGRESQL = connections["records"].vendor == "postgresql"


def test_a_result_is_read_back_as_it_was_found(sink):
    store(
        [
            sample(
                7, START, 12.3456, "degraded", dns_ms=0.5, connect_ms=1.25, first_byte_ms=9.0,
                code=200, address="192.0.2.1",
            )
        ],
        sink,
    )  # fmt: skip
    found = ProbeResult.objects.get()
    assert (found.target_id, found.outcome, found.latency_ms) == (7, "degraded", 12.346)
    phases = (found.dns_ms, found.connect_ms, found.tls_ms, found.first_byte_ms)
    assert phases == (0.5, 1.25, None, 9.0)
    assert (found.code, found.address, found.error) == (200, "192.0.2.1", "")
    assert found.timestamp == START


def test_a_batch_sent_twice_is_stored_once_and_touches_once(sink):
    sent = batch_of(sample(n, at) for n, at in enumerate(every(1, 40)))
    assert sink.write(sent).stored == 40
    again = sink.write(sent)
    assert (again.stored, again.already_stored) == (0, 40)
    assert ProbeResult.objects.count() == 40
    assert RollupDue.objects.get().touches == 1


def test_each_minute_is_marked_with_the_ids_of_its_results(sink):
    first = [sample(1, at) for at in every(20, 9)]
    store(first, sink)
    late = sample(2, START + timedelta(seconds=30), arrived=START + timedelta(minutes=20))
    store([late], sink)
    marks = list(RollupDue.objects.order_by("start"))
    assert [mark.start for mark in marks] == every(60, 3)
    assert [(mark.span_s, mark.due, mark.touches) for mark in marks] == [
        (MINUTE, True, 2),
        (MINUTE, True, 1),
        (MINUTE, True, 1),
    ]
    assert (marks[0].first_id, marks[0].last_id) == (first[0][1].id, late[1].id)
    assert (marks[2].first_id, marks[2].last_id) == (first[6][1].id, first[8][1].id)


@pytest.mark.parametrize(
    "off", [timedelta(days=-9000), timedelta(hours=-2), timedelta(minutes=5), timedelta(days=2900)]
)
def test_a_time_far_from_its_arrival_is_filed_under_the_arrival(sink, off):
    arrived = START + timedelta(seconds=30)
    store([sample(1, START + off, arrived=arrived), sample(2, START, arrived=arrived)], sink)
    assert {r.target_id: r.timestamp for r in ProbeResult.objects.all()} == {1: arrived, 2: START}
    assert RollupDue.objects.get().start == START


def test_a_result_just_before_midnight_that_arrives_after_it_is_stored(sink):
    midnight = START.replace(hour=0) + timedelta(days=1)
    begun = midnight - timedelta(seconds=2)
    store([sample(1, begun, arrived=midnight + timedelta(seconds=1))], sink)
    assert ProbeResult.objects.get().timestamp == begun


def test_results_of_days_long_gone_find_a_partition(sink):
    old = START - timedelta(days=40)
    store([sample(1, old)], sink)
    assert ProbeResult.objects.get().timestamp == old


def test_a_payload_that_is_no_result_costs_only_itself(sink):
    samples = [sample(n, at) for n, at in enumerate(every(1, 60))]
    samples[7][1].payload = b'{"not": "a result"}'
    samples[30][1].payload = b'[9,"ok",1.0'
    samples[31][
        1
    ].payload = b'[1,"ok",1.0,1.0,1.0,1.0,1.0,0,"",""],[1,"ok",1.0,1.0,1.0,1.0,1.0,0,"",""]'
    sent = batch_of(samples)
    with pytest.raises(PartialFailure) as caught:
        sink.write(sent)
    assert sorted(caught.value.failures) == [7, 30, 31]
    assert ProbeResult.objects.count() == 57


def test_what_a_far_side_says_can_always_be_stored(sink):
    said = "a\0b \ud800 é 😀" + "x" * 900
    store([sample(1, START, outcome="failed", error=said)], sink)
    kept = ProbeResult.objects.get().error
    assert kept.startswith("a\\0b \\ud800 é 😀xx")
    assert len(kept) <= 520


def test_the_record_is_the_result():
    made = record_of(3, "web", 1_000, Result(outcome="failed", error="refused", total_ms=1.0005))
    stored = stored_of(made.payload)
    assert (stored.target_id, stored.outcome, stored.error) == (3, "failed", "refused")
    assert (made.message, made.service) == ("refused", "web")


def test_other_records_are_not_taken(sink):
    with pytest.raises(SinkFault, match="no table"):
        sink.write(batch(records(1)))


def test_the_sink_for_operators_does_not_know_the_table():
    assert table_for(PROBE) is None
    assert table.RESULTS in tables()
    assert PROBE in internal_types()


def test_its_pipeline_is_bounded_and_may_drop():
    (sink,) = (one for one in internal_sinks() if one.name == results_sink.NAME)
    assert not sink.required
    tuned = results_sink.tune(PipelineSettings(max_bytes=2**29, backlog_max_bytes=2**30))
    assert (tuned.max_records, tuned.max_wait_s) == (5_000, 1.0)
    assert (tuned.capacity_records, tuned.backlog_max_bytes) == (2_000_000, 256 * 2**20)
    assert sink.spec().key == "internal-results"


def test_results_are_kept_as_long_as_the_setting_for_results_says(settings):
    monitoring = settings.COLLECTOR.monitoring
    assert upkeep.oldest_kept_of(table.RESULTS, START.date()) == START.date() - timedelta(
        days=monitoring.results_days
    )


def test_prune_goes_by_the_days_of_results(sink):
    now = datetime.now(UTC)
    store([sample(1, now - timedelta(days=days)) for days in (0, 3, 5, 9, 20)], sink)
    out = StringIO()
    call_command("prune", "--days", "1", "--dry-run", stdout=out)
    call_command("prune", "--days", "1", stdout=out)
    assert "healthmon_proberesult" in out.getvalue()
    ages = {(now - result.timestamp).days for result in ProbeResult.objects.all()}
    assert ages == {0, 3}


@pytest.mark.skipif(not ON_POSTGRESQL, reason="partitions are PostgreSQL's")
def test_partitions_have_the_index_and_are_made_ahead(sink):
    connection = connections["records"]
    upkeep.run()
    days = {partition.day for partition in listing(connection, table.RESULTS.table)}
    today = datetime.now(UTC).date()
    assert {today, today + timedelta(days=1), today + timedelta(days=2)} <= days
    old = START - timedelta(days=60)  # made by the sink, not by the migration
    store([sample(1, old)], sink)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname, array_agg(a.attname ORDER BY a.attnum) FROM pg_inherits h "
            "JOIN pg_class c ON c.oid = h.inhrelid JOIN pg_index i ON i.indrelid = c.oid "
            "JOIN pg_attribute a ON a.attrelid = i.indexrelid "
            "WHERE h.inhparent = %s::regclass GROUP BY c.relname, i.indexrelid",
            [table.RESULTS.table],
        )
        indexes: dict[str, list[list[str]]] = {}
        for name, columns in cursor.fetchall():
            indexes.setdefault(name, []).append(columns)
    assert len(indexes) >= 4
    assert all(["target_id", "id"] in columns for columns in indexes.values())
    assert f"{table.RESULTS.table}_p{old:%Y%m%d}" in indexes
