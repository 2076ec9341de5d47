"""What jobs tell Prometheus: what was counted, by bounded labels, in every process once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from control.processes.heart import heart
from control.processes.metricfiles import MetricFile, WithOthers, directory
from jobs import metrics, metricservice
from jobs.metrics import MAX_NAMES, OWN, JobMetrics
from jobs.metricservice import GREATEST_OF_ALL, TASK, MetricService
from jobs.states import DEAD, QUEUED, RUNNING, SUCCEEDED


class Stand:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        workers = Gauge("active_workers_count", "Threads.", ("pool",), registry=self.registry)
        self.metrics = JobMetrics(registry=self.registry, workers=workers)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def stand() -> Stand:
    return Stand()


def test_a_job_s_way_is_counted_by_type_and_outcome(stand: Stand):
    told = stand.metrics
    told.count_submitted("pay", 3)
    told.observe_started("pay", 0.04)
    told.count_attempt("pay", metrics.RETRYING)
    told.count_attempt("pay", SUCCEEDED)
    told.observe_ended("pay", SUCCEEDED, 0.3)
    told.observe_ended("pay", DEAD, 9.0)
    assert stand.value("jobs_submitted_total", type="pay") == 3
    assert stand.value("job_attempts_total", type="pay", outcome="retrying") == 1
    assert stand.value("job_attempts_total", type="pay", outcome="succeeded") == 1
    assert stand.value("jobs_total", type="pay", outcome="succeeded") == 1
    assert stand.value("jobs_total", type="pay", outcome="dead") == 1
    took = {"type": "pay", "outcome": "succeeded"}
    assert stand.value("job_processing_duration_seconds_sum", **took) == pytest.approx(0.3)
    assert stand.value("job_processing_duration_seconds_bucket", le="0.25", **took) == 0
    assert stand.value("job_processing_duration_seconds_bucket", le="0.5", **took) == 1
    assert stand.value("job_wait_seconds_count", type="pay") == 1


def test_workers_stand_among_the_pools(stand: Stand):
    stand.metrics.set_workers(7)
    assert stand.value("active_workers_count", pool="jobs") == 7


def test_rescues_and_late_writes_are_counted(stand: Stand):
    stand.metrics.count_rescued(4)
    stand.metrics.count_rescued(0)
    stand.metrics.count_rescued(1, DEAD)
    stand.metrics.count_fenced()
    assert stand.value("job_rescues_total", outcome="queued") == 4
    assert stand.value("job_rescues_total", outcome="dead") == 1
    assert stand.value("job_writes_refused_total") == 1


def test_what_is_no_known_word_reads_other(stand: Stand):
    stand.metrics.observe_ended("pay", "exploded", 1.0)
    stand.metrics.count_attempt("pay", "exploded")
    stand.metrics.count_refused("because")
    stand.metrics.count_schedule("because")
    stand.metrics.count_rescued(1, "because")
    assert stand.value("jobs_total", type="pay", outcome="other") == 1
    assert stand.value("job_attempts_total", type="pay", outcome="other") == 1
    assert stand.value("jobs_refused_total", reason="other") == 1
    assert stand.value("job_schedules_fired_total", outcome="other") == 1
    assert stand.value("job_rescues_total", outcome="other") == 1


def test_types_and_services_beyond_some_read_other(stand: Stand):
    for number in range(MAX_NAMES + 5):
        stand.metrics.observe_ended(f"type-{number}", SUCCEEDED, 0.1)
        stand.metrics.observe_started(f"type-{number}", 0.1)
    assert stand.value("jobs_total", type="other", outcome="succeeded") == 5
    assert stand.value("jobs_total", type="type-0", outcome="succeeded") == 1
    assert stand.value("job_wait_seconds_count", type="other") == 5
    stand.metrics.note_downstreams(
        [{"name": f"d{n}", "calls": 2, "failures": 1, "trips": 0} for n in range(MAX_NAMES + 5)]
    )
    assert stand.value("downstream_calls_total", downstream="other") == 10


def downstream(**fields: Any) -> dict[str, Any]:
    given = {"name": "bank", "breaker": "closed", "in_flight": 0}
    return {**given, "calls": 0, "failures": 0, "trips": 0, **fields}


def test_downstream_services_are_told_by_what_they_did_since(stand: Stand):
    told = stand.metrics
    told.note_downstreams([downstream(calls=10, failures=4, in_flight=2)])
    told.note_downstreams([downstream(calls=15, failures=9, trips=1, breaker="open")])
    assert stand.value("downstream_calls_total", downstream="bank") == 15
    assert stand.value("downstream_failures_total", downstream="bank") == 9
    assert stand.value("downstream_breaker_trips_total", downstream="bank") == 1
    assert stand.value("downstream_breaker_state", downstream="bank") == 2
    assert stand.value("downstream_calls_in_flight", downstream="bank") == 0
    told.note_downstreams([downstream(calls=16, failures=9, trips=1, breaker="half_open")])
    assert stand.value("downstream_breaker_state", downstream="bank") == 1
    # It was forgotten, and is known anew: its totals begin again.
    told.note_downstreams([])
    assert stand.value("downstream_breaker_state", downstream="bank") == 0
    told.note_downstreams([downstream(calls=2)])
    assert stand.value("downstream_calls_total", downstream="bank") == 18


def test_what_the_downstream_room_tells_is_understood(stand: Stand):
    """The real one, called once and refused at the socket."""
    import socket

    from control.outbound.policy import AddressPolicy
    from jobs.downstream.calls import CallRequest, Downstreams
    from jobs.execution.interruption import Interruption
    from jobs.types.spec import DownstreamSpec
    from pipeline.delivery.breaker import BreakerSettings
    from pipeline.errors import RetryableError
    from pipeline.runtime.clock import SystemClock

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    clock = SystemClock()
    calls = Downstreams(clock=clock, policy=AddressPolicy())
    spec = DownstreamSpec(
        id=1,
        name="bank",
        base_url=f"http://127.0.0.1:{port}",
        breaker=BreakerSettings(consecutive=1, min_calls=1, failure_ratio=0.5, open_s=60),
    )
    request = CallRequest(
        method="GET", path="/", headers={}, body=None, content_type="", expected_status="",
        timeout_s=None,
    )  # fmt: skip
    with pytest.raises(RetryableError):
        calls.call(spec, request, left_s=30, interruption=Interruption(clock=clock))
    stand.metrics.note_downstreams(calls.states())
    calls.close()
    assert stand.value("downstream_calls_total", downstream="bank") == 1
    assert stand.value("downstream_failures_total", downstream="bank") == 1
    assert stand.value("downstream_breaker_state", downstream="bank") == 2
    assert stand.value("downstream_breaker_trips_total", downstream="bank") == 1


def test_the_depth_is_of_all_types_and_never_below_nothing(stand: Stand):
    stand.metrics.note_depth({1: {QUEUED: 3, RUNNING: 1, SUCCEEDED: 99}, 2: {QUEUED: 2}})
    assert stand.value("job_queue_depth", state="queued") == 5
    assert stand.value("job_queue_depth", state="running") == 1
    assert stand.value("job_queue_depth", state="scheduled") == 0
    assert stand.value("job_queue_depth", state="succeeded") is None
    stand.metrics.note_depth({1: {QUEUED: -2}})
    assert stand.value("job_queue_depth", state="queued") == 0


def test_all_that_is_of_jobs_alone_is_named_as_such(stand: Stand):
    names = {family.name for family in stand.registry.collect()}
    assert names - {"active_workers_count"} == OWN


# --- shown by the server -------------------------------------------------------------------------


def written(folder: Path, stand: Stand, pid: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    MetricFile(
        folder=folder,
        role="jobs",
        collect=stand.registry.collect,
        own=OWN,
        greatest=GREATEST_OF_ALL,
        pid=pid,
    ).write()


def test_two_runners_are_shown_as_one(tmp_path: Path):
    for pid, breaker in ((os.getpid(), "open"), (os.getppid(), "closed")):
        runner = Stand()
        runner.metrics.observe_ended("pay", SUCCEEDED, 0.1)
        runner.metrics.note_downstreams([downstream(calls=1, breaker=breaker)])
        runner.metrics.set_workers(3)
        written(tmp_path, runner, pid)
    shown = generate_latest(WithOthers(registry=CollectorRegistry(), folder=tmp_path)).decode()
    assert 'jobs_total{outcome="succeeded",type="pay"} 2.0' in shown
    assert 'downstream_breaker_state{downstream="bank"} 2.0' in shown
    assert 'active_workers_count{pool="jobs",process="jobs"} 6.0' in shown


@pytest.mark.django_db
def test_the_server_shows_them(data_dir: Path, client: Client, stand: Stand):
    stand.metrics.observe_ended("pay", SUCCEEDED, 0.1)
    folder = directory(data_dir)
    written(folder, stand, os.getpid())
    try:
        answer = client.get("/metrics")
    finally:
        (folder / f"{os.getpid()}.metrics").unlink()
    assert b'jobs_total{outcome="succeeded",type="pay"} 1.0' in answer.content


@pytest.mark.django_db
def test_servers_ask_the_database_how_many_jobs_wait(monkeypatch, stand: Stand):
    from jobs.store.database import store
    from jobs.store.protocol import Draft
    from jobs.types.models import JobType

    row = JobType.objects.create(name="pay")
    store().submit([Draft(type_id=row.pk, payload={}) for _ in range(3)])
    monkeypatch.setattr(metrics, "note_depth", stand.metrics.note_depth)
    metricservice.read_depth()
    assert stand.value("job_queue_depth", state="queued") == 3


def test_only_servers_ask_for_the_depth_and_only_runners_write(data_dir: Path):
    service = MetricService()
    service.start("checker")
    assert TASK not in heart()._tasks
    service.start("server")
    assert TASK in heart()._tasks
    assert service._writer is None
    service.stop(30)
    assert TASK not in heart()._tasks
    service.start("jobs")
    service.start("jobs")
    assert TASK not in heart()._tasks
    metrics.count_submitted("from-this-test")
    service.stop(30)
    service.stop(30)
    path = directory(data_dir) / f"{os.getpid()}.metrics"
    try:
        text = generate_latest(WithOthers(registry=CollectorRegistry(), folder=path.parent))
        assert b'jobs_submitted_total{type="from-this-test"} 1.0' in text
    finally:
        path.unlink()
