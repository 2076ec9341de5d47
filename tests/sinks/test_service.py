"""The service: from rows to running pipelines, changes under way, and the end."""

from __future__ import annotations

import dataclasses
import stat
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from control.models import Process
from control.ports.stats import take_peaks
from control.processes import heart
from healthmon.truth.changes import Change
from healthmon.truth.changes import record_of as flip_record
from pipeline.errors import NoSink, Saturated
from pipeline.record import ERROR
from sinks import backlog, snapshot
from sinks.backends.memory import MemorySink
from sinks.models import SinkConfig
from sinks.service import SinkService
from tests.sinks.contract import WAIT_S
from tests.sinks.records import records

pytestmark = pytest.mark.django_db(transaction=True)

MEMORY = "sinks.backends.memory.MemorySink"


def row(name: str = "kept", **fields: object) -> SinkConfig:
    fields = {"backend": MEMORY, "pipeline": {"max_wait_s": 0.0}, **fields}
    return SinkConfig.objects.create(name=name, **fields)


@pytest.fixture(autouse=True)
def _own_data_dir(settings, tmp_path):
    server = dataclasses.replace(settings.COLLECTOR.server, data_dir=tmp_path)
    settings.COLLECTOR = dataclasses.replace(settings.COLLECTOR, server=server)
    SinkConfig.objects.all().delete()


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def service(reports):
    service = SinkService(on_report=reports.append)
    yield service
    service.stop(5.0)


def offer(service: SinkService, count: int = 3, **fields: Any):
    type, tenant = fields.pop("type", "log"), fields.pop("tenant", "default")
    return service.engine.offer(type=type, tenant=tenant, records=records(count, **fields))


def test_rows_become_pipelines_that_store(service, reports):
    row()
    service.start("test")
    service.start("test")
    assert service.running
    assert offer(service, 5).wait(WAIT_S)
    assert MemorySink.named("kept").stored == 5
    assert service.readiness() is None
    service.stop(5.0)
    service.stop(5.0)
    assert not service.running
    assert len(reports) == 1
    assert "kept" in reports[0]
    assert "dropped" in reports[0]


def test_it_starts_again_after_a_stop(service):
    row()
    service.start("test")
    first = service.engine.log_id
    service.stop(5.0)
    service.start("test")
    assert service.engine.log_id != first
    assert offer(service).wait(WAIT_S)


def test_a_command_has_no_pipelines(service):
    service.start("command")
    assert not service.running
    with pytest.raises(RuntimeError, match="no engine"):
        _ = service.engine
    assert service.readiness() == "the pipelines are not running"


def test_a_change_of_rows_is_followed(service):
    service.start("test")
    assert "no sink is enabled" in service.readiness()
    with pytest.raises(NoSink):
        offer(service)
    before = service._fingerprint()
    made = row()
    assert service._fingerprint() != before
    service.apply()
    assert offer(service).wait(WAIT_S)
    made.options = {"keep_records": 7}
    made.save()
    service.apply()
    assert offer(service).wait(WAIT_S)
    assert MemorySink.named("kept").options.keep_records == 7
    made.enabled = False
    made.save()
    service.apply()
    with pytest.raises(NoSink):
        offer(service)


def test_what_does_not_concern_pipelines_changes_no_fingerprint(service):
    made = row()
    before = service._fingerprint()
    made.save()  # updated_at moves
    assert service._fingerprint() == before


def test_the_watcher_is_registered_while_it_runs(service):
    service.start("test")
    assert "sinks" in heart.heart()._tasks
    service.stop(5.0)
    assert "sinks" not in heart.heart()._tasks


def test_a_bad_row_is_misconfigured_and_nothing_else(service):
    row()
    row("broken", options={"nosuch": 1}, required=False)
    row("foreign", backend="os.path.join", required=False)
    row("unmade", backend="sinks.backends.nosuch.Sink", required=False)
    row("wild", pipeline={"max_workers": 0}, required=False)
    service.start("test")
    assert offer(service).wait(WAIT_S)
    said = {one["name"]: one["misconfigured"] for one in service.stats()["pipelines"]}
    assert said["kept"] == ""
    assert 'sink "broken": unknown option nosuch' in said["broken"]
    assert "is not allowed" in said["foreign"]
    assert "cannot be imported" in said["unmade"]
    assert "max_workers" in said["wild"]
    assert service.readiness() is None
    SinkConfig.objects.filter(name="broken").update(required=True)
    service.apply()
    assert "broken is misconfigured" in service.readiness()


def test_a_misconfigured_sink_is_bounded_by_its_own_settings(service):
    row("foreign", backend="os.path.join", pipeline={"capacity_records": 100, "max_records": 10})
    service.start("test")
    offer(service, 81)
    with pytest.raises(Saturated, match="81 records of 100"):
        offer(service, 1)


def test_routes_choose_by_type_tenant_and_level(service):
    row("logs", route_types=["log"])
    row("acme", route_tenants=["acme"])
    row("errors", min_level="ERROR")
    service.start("test")
    assert offer(service, 2, tenant="acme").wait(WAIT_S)
    assert offer(service, 3, type="event", severity=ERROR).wait(WAIT_S)
    stored = {
        name: MemorySink.named(name).stored if name in MemorySink._named else 0
        for name in ("logs", "acme", "errors")
    }
    assert stored == {"logs": 2, "acme": 2, "errors": 3}


def test_a_pause_holds_records_back(service):
    made = row(paused=True)
    service.start("test")
    receipt = offer(service)
    assert service.stats()["pipelines"][0]["state"] == "paused"
    assert not receipt.done
    made.paused = False
    made.save()
    service.apply()
    assert receipt.wait(WAIT_S)


def test_a_sink_with_one_writer_has_one_worker(service, monkeypatch):
    monkeypatch.setattr(MemorySink, "supports_concurrent_writes", False)
    monkeypatch.setattr(MemorySink, "max_batch_records", 100)
    row()
    service.start("test")
    settings = service.engine.pipelines[0].spec.settings
    assert (settings.min_workers, settings.max_workers, settings.max_records) == (1, 1, 100)
    assert service.stats()["pipelines"][0]["capped"] == ["max_records", "max_workers"]


def test_the_sampler_hears_how_full_each_queue_was(service):
    made = row(pipeline={"capacity_records": 5_000})
    service.start("test")
    service.register_ports()
    assert offer(service, 3).wait(WAIT_S)
    assert take_peaks()[str(made.pk)] == 3 / 5_000
    assert take_peaks()[str(made.pk)] == 0.0


def test_a_size_that_finds_itself_stays_within_what_the_sink_takes_at_once(service, monkeypatch):
    monkeypatch.setattr(MemorySink, "max_batch_records", 50)
    row(pipeline={"adaptive_batch": "on"})
    service.start("test")
    pipeline = service.engine.pipelines[0]
    adaptive = pipeline.spec.settings.adaptive
    assert (adaptive.batch, adaptive.start_records, adaptive.max_records) == (True, 50, 50)
    assert pipeline.batch_limit == 50


def test_the_first_batch_writes_a_copy_that_starts_without_a_database(service, monkeypatch):
    row(options={"keep_records": 5})
    service.start("test")
    assert stat.S_IMODE(snapshot.path().stat().st_mode) == 0o600
    service.stop(5.0)

    def away(*args, **kwargs):
        raise OperationalError("no such host")

    monkeypatch.setattr(SinkConfig.objects, "all", away)
    service.start("test")
    assert offer(service).wait(WAIT_S)
    assert MemorySink.named("kept").options.keep_records == 5
    monkeypatch.undo()
    service.apply()
    monkeypatch.setattr(SinkConfig.objects, "all", away)
    with pytest.raises(OperationalError):
        service.apply()  # the heart tries again; the pipelines stay
    assert offer(service).wait(WAIT_S)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sinks":[{}]}', '{"sinks":[{"id":"x"}]}'])
def test_a_damaged_copy_is_no_copy(text, caplog):
    snapshot.path().write_text(text)
    assert snapshot.load() == []
    assert "cannot be used" in caplog.text


def test_other_processes_can_ask_for_a_flush_and_a_drain(service):
    row(pipeline={"max_wait_s": 3600})
    service.start("test")
    receipt = offer(service)
    answer = service._flush({"deadline_s": WAIT_S})
    assert answer["settled"]
    assert receipt.wait(WAIT_S)  # told a moment after the batch has settled
    answer = service._drain({"deadline_s": WAIT_S})
    assert answer["settled"]
    assert answer["ledger"][0]["stored"] == 3
    assert service.readiness() == "draining"


def test_a_stop_whose_deadline_passes_says_what_was_lost(service, reports):
    row()
    service.start("test")
    offer(service).wait(WAIT_S)
    sink = MemorySink.named("kept")
    sink.hold()
    offer(service, 4)
    assert sink.join_writing(timeout_s=WAIT_S)
    service.stop(0.2)
    assert "(shutdown)" in reports[0] or "in flight" in reports[0]


@pytest.mark.parametrize("first", ["the request", "the watcher"])
def test_the_backlog_of_a_sink_is_discarded_and_no_other(service, first):
    gone, other = row("gone", paused=True), row("other", paused=True)
    service.start("test")
    offer(service, 3)
    key = str(gone.pk)
    Process.objects.create(
        role="server", host="h", pid=1, started_at=timezone.now(), last_seen_at=timezone.now()
    )
    gone.delete()
    assert backlog.discard(key) == 1
    if first == "the request":
        service._discard({"sink": "nobody knows it"})
        service._discard({"sink": key})
    else:
        service.apply()
    operators = [one.key for one in service.engine.pipelines if not one.spec.internal]
    assert operators == [str(other.pk)]
    ledger = {entry["sink"]: entry for entry in service.stats()["ledger"]}
    told = ledger["gone"]
    assert (told["dropped"], told["in_flight"], told["imbalance"]) == ({"sink_removed": 3}, 0, 0)
    assert (ledger["other"]["in_flight"], ledger["other"]["dropped"]) == (3, {})


def test_without_an_operators_sink_logs_are_refused_though_others_listen(service):
    service.start("test")
    assert service.readiness() == "no sink is enabled: records would be refused"
    for type in ("log", "health"):
        with pytest.raises(NoSink):
            offer(service, 1, type=type)
    assert offer(service, 1, type="ping").wait(WAIT_S)


def test_what_apps_keep_for_themselves_reaches_a_sink_that_names_it(service):
    row()
    row("flips too", route_types=["flip"])
    service.start("test")
    change = flip_record(
        Change(target_id=987_654, target="shop", seq=1, from_status="up", to_status="down", at_us=1)
    )
    receipt = service.engine.offer(type="flip", tenant="default", records=[change])
    assert receipt.wait(WAIT_S)
    service.engine.flush(WAIT_S)
    assert MemorySink.named("flips too").stored == 1
    assert "kept" not in {entry["sink"] for entry in service.stats()["ledger"]}


def test_what_waits_for_a_sink_that_is_gone_is_delivered_unless_told_otherwise(service):
    gone = row("gone", paused=True)
    service.start("test")
    receipt = offer(service, 3)
    gone.delete()
    service.apply()
    assert receipt.wait(WAIT_S)
    (told,) = service.stats()["ledger"]
    assert (told["stored"], told["dropped"]) == (3, {})
