"""What checkers count is what the server shows: added up, bounded, and not lost with a process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from django.test import Client
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from control.processes import metricfiles
from control.processes.metricfiles import MetricFile, WithOthers, directory
from healthmon import metrics, metricservice
from healthmon.metrics import OWN, ProbeFigures
from healthmon.metricservice import MetricService
from healthmon.targets.models import Target
from healthmon.truth.models import TargetState


def registry_of(figures: ProbeFigures) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(figures)
    return registry


def value(registry, name: str, **labels: str) -> float | None:
    for family in registry.collect():
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def ended_pid() -> int:
    """The id of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def write(folder: Path, figures: ProbeFigures, pid: int) -> MetricFile:
    file = MetricFile(
        folder=folder, role="checker", collect=registry_of(figures).collect, own=OWN, pid=pid
    )
    folder.mkdir(exist_ok=True)
    file.write()
    return file


def test_probes_are_counted_by_kind_and_outcome():
    figures = ProbeFigures()
    for _ in range(3):
        figures.count_probe("http", "ok", 0.02, 0.002)
    figures.count_probe("http", "failed", 40.0, 0.3)
    figures.count_probe("tcp", "ok", 0.001, 0.0)
    registry = registry_of(figures)
    assert value(registry, "probes_total", kind="http", outcome="ok") == 3
    assert value(registry, "probes_total", kind="http", outcome="failed") == 1
    buckets = "probe_duration_seconds_bucket"
    assert value(registry, buckets, kind="http", le="0.01") == 0
    assert value(registry, buckets, kind="http", le="0.025") == 3
    assert value(registry, buckets, kind="http", le="30.0") == 3
    assert value(registry, buckets, kind="http", le="+Inf") == 4
    assert value(registry, "probe_duration_seconds_count", kind="http") == 4
    assert value(registry, "probe_duration_seconds_sum", kind="http") == pytest.approx(40.06)
    assert value(registry, "probe_schedule_lag_seconds_count") == 5
    # A bound belongs to its bucket.
    assert value(registry, buckets, kind="tcp", le="0.001") == 1


def test_labels_are_bounded():
    figures = ProbeFigures()
    for number in range(200):
        figures.count_probe(f"third.party.kind{number}", "ok", 0.1, 0.0)
        figures.count_dropped(f"reason {number}", 1)
        figures.note_status(f"target {number} " + "x" * 300, "up")
    for number in range(3_000):
        figures.note_status(f"more {number}", "down")
    families = {family.name: family for family in registry_of(figures).collect()}
    kinds = {s.labels["kind"] for s in families["probes"].samples}
    assert len(kinds) == metrics.MAX_KINDS + 1
    assert "other" in kinds
    assert sum(s.value for s in families["probes"].samples) == 200
    assert sum(s.value for s in families["probe_results_dropped"].samples) == 200
    assert len(families["probe_results_dropped"].samples) == metrics.MAX_REASONS + 1
    assert len(families["probe_up"].samples) == metrics.MAX_TARGETS
    assert max(len(s.labels["target"]) for s in families["probe_up"].samples) <= 200


@pytest.mark.django_db
def test_statuses_are_read_from_the_rows(monkeypatch):
    monkeypatch.setattr(metricservice, "MAX_TARGETS", 3)
    for name, status in (("a", "up"), ("b", "down"), ("c", "unknown"), ("d", "up"), ("e", "")):
        target = Target.objects.create(name=name)
        if status:
            TargetState.objects.create(target=target, status=status)
    figures = ProbeFigures()
    metricservice.read_statuses(figures)
    registry = registry_of(figures)
    assert value(registry, "targets", status="up") == 2
    assert value(registry, "targets", status="new") == 1
    assert value(registry, "probe_up", target="a") == 1
    assert value(registry, "probe_up", target="b") == 0
    # Neither up nor down: nothing is said.
    assert value(registry, "probe_up", target="c") is None
    assert value(registry, "probe_up_omitted") == 2
    figures.note_status("a", "down")
    assert value(registry, "probe_up", target="a") == 0


def test_the_figures_of_several_processes_add_up(tmp_path):
    one, other = ProbeFigures(), ProbeFigures()
    one.count_probe("http", "ok", 0.02, 0.0)
    one.note_checker(in_flight=3, parked=0, waiting_results=1, waiting_flips=0, loop_lag_s=0.0)
    one.note_statuses({"up": 4}, [("a", "up")], 4)
    other.count_probe("http", "ok", 0.02, 0.0)
    other.count_probe("http", "failed", 0.02, 0.0)
    other.note_checker(in_flight=4, parked=0, waiting_results=0, waiting_flips=0, loop_lag_s=0.0)
    other.note_statuses({"up": 4}, [("a", "up")], 4)
    folder = tmp_path / "processes"
    greatest = metricservice.GREATEST_OF_ALL
    folder.mkdir()
    for figures, pid in ((one, os.getpid()), (other, os.getppid())):
        MetricFile(
            folder=folder,
            role="checker",
            collect=registry_of(figures).collect,
            own=OWN,
            greatest=greatest,
            pid=pid,
        ).write()
    shown = WithOthers(registry=CollectorRegistry(), folder=folder)
    assert value(shown, "probes_total", kind="http", outcome="ok") == 2
    assert value(shown, "probes_total", kind="http", outcome="failed") == 1
    assert value(shown, "probe_duration_seconds_count", kind="http") == 3
    assert value(shown, "probes_in_flight") == 7
    # Both tell of the same targets.
    assert value(shown, "targets", status="up") == 4
    assert value(shown, "probe_up", target="a") == 1


def test_a_family_that_the_server_has_too_is_shown_once(tmp_path):
    server, checker = CollectorRegistry(), CollectorRegistry()
    for registry, count in ((server, 5), (checker, 7)):
        Counter("flips_stored_total", "Flips.", ["to_status"], registry=registry).labels("up").inc(
            count
        )
        Gauge("queue_depth", "Held.", ["sink"], registry=registry).labels("flips").set(count)
    file = MetricFile(folder=tmp_path, role="checker", collect=checker.collect, own=OWN)
    file.open()
    file.write()
    text = generate_latest(WithOthers(registry=server, folder=tmp_path)).decode()
    assert text.count("# TYPE flips_stored_total counter") == 1
    assert 'flips_stored_total{to_status="up"} 5.0' in text
    assert 'flips_stored_total{process="checker",to_status="up"} 7.0' in text
    assert 'queue_depth{process="checker",sink="flips"} 7.0' in text


def test_what_an_ended_process_counted_stays_counted(tmp_path):
    folder = tmp_path / "processes"
    first = ProbeFigures()
    first.count_probe("http", "ok", 0.02, 0.0)
    first.note_checker(in_flight=3, parked=0, waiting_results=1, waiting_flips=0, loop_lag_s=0.0)
    write(folder, first, ended_pid())
    shown = WithOthers(registry=CollectorRegistry(), folder=folder)
    assert value(shown, "probes_total", kind="http", outcome="ok") == 1
    assert value(shown, "probes_in_flight") is None

    second = ProbeFigures()
    second.count_probe("http", "ok", 0.02, 0.0)
    file = MetricFile(folder=folder, role="checker", collect=registry_of(second).collect, own=OWN)
    for _ in range(2):  # opening again counts nothing twice
        file.open()
        assert [path.name for path in metricfiles._files(folder)] == []
        assert value(shown, "probes_total", kind="http", outcome="ok") == 1
    file.write()
    assert value(shown, "probes_total", kind="http", outcome="ok") == 2


def test_a_damaged_file_costs_its_own_figures(tmp_path, caplog):
    figures = ProbeFigures()
    figures.count_probe("http", "ok", 0.02, 0.0)
    folder = tmp_path / "processes"
    write(folder, figures, os.getpid())
    (folder / f"{os.getppid()}.metrics").write_bytes(b"\x93garbage")
    shown = WithOthers(registry=CollectorRegistry(), folder=folder)
    assert value(shown, "probes_total", kind="http", outcome="ok") == 1
    assert "damaged" in caplog.text


def test_a_held_up_process_tells_of_no_gauges(tmp_path):
    figures = ProbeFigures()
    figures.count_probe("http", "ok", 0.02, 0.0)
    figures.note_checker(in_flight=3, parked=0, waiting_results=1, waiting_flips=0, loop_lag_s=0.0)
    folder = tmp_path / "processes"
    write(folder, figures, os.getpid())
    os.utime(folder / f"{os.getpid()}.metrics", (1, 1))
    shown = WithOthers(registry=CollectorRegistry(), folder=folder)
    assert value(shown, "probes_in_flight") is None
    assert value(shown, "probes_total", kind="http", outcome="ok") == 1


def test_only_a_checker_writes_and_its_last_figures_are_there_after_it_stopped(
    settings, data_dir, monkeypatch
):
    registry = CollectorRegistry()
    monkeypatch.setattr(metricservice, "REGISTRY", registry)
    asked = threading.Event()
    figures = ProbeFigures()
    service = MetricService(of=figures, every_s=60, statuses=lambda into: asked.set())
    service.start("server")
    assert service._writer is None
    service.start("checker")
    service.start("checker")
    assert asked.wait(180)
    figures.count_probe("http", "ok", 0.02, 0.0)
    service.stop(30)
    service.stop(30)
    path = directory(data_dir) / f"{os.getpid()}.metrics"
    try:
        text = generate_latest(WithOthers(registry=CollectorRegistry(), folder=path.parent))
        assert b'probes_total{kind="http",outcome="ok"} 1.0' in text
    finally:
        path.unlink()


def test_the_server_shows_them(data_dir, client: Client, db):
    figures = ProbeFigures()
    figures.count_probe("http", "ok", 0.02, 0.0)
    folder = directory(data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, figures, os.getpid())
    try:
        answer = client.get("/metrics")
    finally:
        (folder / f"{os.getpid()}.metrics").unlink()
    assert answer.status_code == 200
    assert b'probes_total{kind="http",outcome="ok"} 1.0' in answer.content
    assert b"# TYPE probe_duration_seconds histogram" in answer.content
