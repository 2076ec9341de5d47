"""What pipelines tell the world: metrics, spans, log lines, the ledger's table, problems."""

from __future__ import annotations

import dataclasses
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from pipeline.engine import Engine
from pipeline.errors import PermanentError, RetryableError
from pipeline.ids import RecordIds
from pipeline.settings import PipelineSettings
from pipeline.spec import PipelineSpec
from sinks import problems, report
from sinks.backends.memory import MemorySink
from sinks.logs import BatchLog
from sinks.metrics import EngineMetrics, Metrics
from sinks.models import SinkConfig
from sinks.tracing import BatchTracing, tracing_observer
from tests.sinks.contract import WAIT_S
from tests.sinks.records import batch, records

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink(name="observed")


@pytest.fixture
def engine(sink):
    engine = Engine(log_id="testlog", ids=RecordIds(node=1))
    engine.configure(
        [
            PipelineSpec(
                key="key-1",
                name="kept",
                sink_factory=lambda: sink,
                settings=PipelineSettings(max_records=10, max_wait_s=0.0),
            )
        ]
    )
    yield engine
    engine.stop(5.0)


def offer(engine: Engine, count: int = 1, **fields: Any):
    return engine.offer(type="log", tenant="default", records=records(count), **fields)


def test_metrics_count_what_happens(engine, sink):
    registry = CollectorRegistry()
    metrics = EngineMetrics(engine, into=Metrics(registry))
    engine.observe(metrics)
    engine.start()
    sink.fail_next(RetryableError("busy"))
    assert offer(engine, 10).wait(WAIT_S)
    sink.fail_next(PermanentError("bad"))
    assert offer(engine, 1).wait(WAIT_S)
    engine.stop(WAIT_S)
    stats = engine.stats()
    metrics.refresh(stats)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("records_stored_total", sink="kept") == 10
    assert value("worker_retries_total", sink="kept") == 1
    assert value("worker_failures_total", sink="kept", error="RetryableError") == 1
    assert value("worker_failures_total", sink="kept", error="PermanentError") == 1
    dropped = {"sink": "kept", "reason": "permanent", "intentional": "false"}
    assert value("records_dropped_total", **dropped) == 1
    assert value("write_latency_seconds_count", sink="kept") == 3
    assert value("flush_duration_seconds_count", sink="kept") == 2
    assert value("batch_size_sum", sink="kept") == 11
    assert value("batches_flushed_total", sink="kept", reason="size") == 1
    assert value("flush_reason_total", reason="size") == 1
    assert value("queue_depth", sink="kept") == 0
    assert value("queue_bytes", sink="kept") == 0
    assert value("active_workers_count", pool="kept") is not None
    assert value("ledger_imbalance", sink="kept") == 0


def test_each_step_of_the_autoscaler_is_counted_by_its_direction(engine):
    registry = CollectorRegistry()
    metrics = EngineMetrics(engine, into=Metrics(registry))
    for step, workers in ((1, 2), (1, 3), (-1, 2)):
        metrics.scaled("kept", workers, step, "because")
    for direction, count in (("up", 2), ("down", 1)):
        labels = {"sink": "kept", "direction": direction}
        assert registry.get_sample_value("autoscaler_decisions_total", labels) == count
    assert registry.get_sample_value("active_workers_count", {"pool": "kept"}) == 0


def test_an_imbalance_is_seen_and_a_sink_that_is_gone_reads_nothing(engine):
    registry = CollectorRegistry()
    metrics = EngineMetrics(engine, into=Metrics(registry))
    pipeline = {"name": "gone", "held_records": 5, "held_bytes": 6, "workers": 1}
    row = {"sink": "gone", "imbalance": -7}
    metrics.refresh({"pipelines": [pipeline], "ledger": [row, {"sink": "gone", "imbalance": 2}]})
    assert registry.get_sample_value("ledger_imbalance", {"sink": "gone"}) == 7
    assert registry.get_sample_value("queue_depth", {"sink": "gone"}) == 5
    metrics.refresh({"pipelines": [], "ledger": []})
    for gauge, label in (
        ("queue_depth", "sink"),
        ("queue_bytes", "sink"),
        ("active_workers_count", "pool"),
        ("ledger_imbalance", "sink"),
    ):
        assert registry.get_sample_value(gauge, {label: "gone"}) == 0


def test_a_renamed_sink_counts_under_its_new_name(engine, sink):
    registry = CollectorRegistry()
    metrics = EngineMetrics(engine, into=Metrics(registry))
    engine.observe(metrics)
    engine.start()
    assert offer(engine, 10).wait(WAIT_S)
    (pipeline,) = engine.pipelines
    engine.configure([dataclasses.replace(pipeline.spec, name="renamed")])
    assert offer(engine, 10).wait(WAIT_S)
    engine.stop(WAIT_S)
    metrics.refresh(engine.stats())
    for sample, count in (
        ("records_stored_total", 10),
        ("batch_size_sum", 10),
        ("write_latency_seconds_count", 1),
    ):
        for name in ("kept", "renamed"):
            assert registry.get_sample_value(sample, {"sink": name}) == count


def test_a_backlog_that_somebody_discarded_is_dropped_on_purpose(engine, sink):
    registry = CollectorRegistry()
    engine.observe(EngineMetrics(engine, into=Metrics(registry)))
    (pipeline,) = engine.pipelines
    engine.configure([dataclasses.replace(pipeline.spec, paused=True)])
    engine.start()
    offer(engine, 3)
    engine.discard("key-1")
    labels = {"sink": "kept", "reason": "sink_removed", "intentional": "true"}
    assert registry.get_sample_value("records_dropped_total", labels) == 3


def test_labels_of_errors_are_bounded(engine):
    registry = CollectorRegistry()
    metrics = EngineMetrics(engine, into=Metrics(registry))

    class Strange(Exception):
        pass

    metrics.write_finished(batch(records(1)), 0.1, Strange())
    labels = {"sink": "handmade", "error": "other"}
    assert registry.get_sample_value("worker_failures_total", labels) == 1


# --- traces --------------------------------------------------------------------------------


def test_tracing_is_nothing_while_it_is_off():
    assert tracing_observer() is None


def test_a_batch_and_its_writes_are_spans(engine, sink):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    engine.observe(BatchTracing(provider=provider))
    engine.start()
    sink.fail_next(RetryableError("busy"))
    assert offer(engine, 10, traceparent=TRACEPARENT).wait(WAIT_S)
    engine.stop(WAIT_S)
    spans: Any = exporter.get_finished_spans()
    (whole,) = [span for span in spans if span.name == "batch"]
    writes = [span for span in spans if span.name == "sink.write"]
    assert [span.attributes["collector.attempt"] for span in writes] == [1, 2]
    assert {span.parent.span_id for span in writes} == {whole.context.span_id}
    assert not writes[0].status.is_ok
    assert writes[1].status.status_code.name != "ERROR"
    assert whole.attributes["collector.stored"] == 10
    assert whole.attributes["collector.records"] == 10
    assert [f"{link.context.trace_id:032x}" for link in whole.links] == [TRACEPARENT.split("-")[1]]
    assert "collector.worker_id" in writes[0].attributes


@pytest.mark.parametrize("text", ["nonsense", "00-zz-yy-01", "00-0-0-0", "", "00"])
def test_a_wrong_traceparent_is_no_link(text):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = BatchTracing(provider=provider)
    one = batch(records(1))
    one.parts[0].frame.traceparent = text
    tracing.batch_closed(one)
    tracing.batch_settled(one, 0, 0, 0.1)
    (span,) = exporter.get_finished_spans()
    assert span.links == ()
    assert not span.status.is_ok


# --- log lines -----------------------------------------------------------------------------


def test_a_failed_batch_is_told_once_with_its_ids(engine, sink, caplog):
    engine.observe(BatchLog())
    engine.start()
    sink.fail_next(RetryableError("busy"))
    with caplog.at_level(logging.DEBUG):
        assert offer(engine, 1, request_id="req-7").wait(WAIT_S)
        engine.stop(WAIT_S)
    tried, waits, stored = (r for r in caplog.records if r.name == "sinks.logs")
    assert (tried.levelname, waits.levelname, stored.levelname) == ("DEBUG", "INFO", "DEBUG")
    assert waits.batch_id == stored.batch_id
    assert waits.request_id == "req-7"
    assert (waits.records, waits.attempt, stored.attempt) == (1, 1, 2)
    assert waits.delay_s >= 0
    (said,) = (r for r in caplog.records if "busy" in r.getMessage())
    assert said.name.startswith("pipeline.")
    assert waits.batch_id in said.getMessage()


def test_whoever_logs_during_a_write_says_which_batch():
    import structlog

    one = batch(records(1))
    with BatchLog().writing(one, "sink-kept-1"):
        bound = structlog.contextvars.get_contextvars()
    assert (bound["worker_id"], bound["batch_id"]) == ("sink-kept-1", one.batch_id)
    assert structlog.contextvars.get_contextvars() == {}


# --- the ledger ----------------------------------------------------------------------------


def entry(**fields: object) -> dict[str, object]:
    return {
        "sink": "kept", "tenant": "default", "accepted": 0, "redriven": 0, "stored": 0,
        "already_stored": 0, "dead_lettered": 0, "dropped": {}, "in_flight": 0, "imbalance": 0,
        **fields,
    }  # fmt: skip


def test_the_ledger_is_a_table(capsys):
    rows = [
        entry(accepted=12, stored=10, dropped={"shutdown": 2}),
        entry(tenant="a\x1b[2J", accepted=5, stored=4, imbalance=1),
    ]
    text = report.table({"log_id": "x", "ledger": rows})
    lines = text.splitlines()
    assert lines[0] == "ledger of log x"
    assert lines[1].split() == [
        "sink",
        "tenant",
        "accepted",
        "redriven",
        "stored",
        "already",
        "stored",
        "dead",
        "lettered",
        "dropped",
        "in",
        "flight",
        "left",
        "in",
        "log",
        "imbalance",
    ]
    assert lines[2].split() == ["kept", "default", "12", "0", "10", "0", "0", "2", "0", "0", "0"]
    assert "\x1b" not in text
    assert lines[4].split() == ["total", "17", "0", "14", "0", "0", "2", "0", "0", "1"]
    assert lines[5].strip() == "dropped by kept/default: 2 (shutdown)"
    assert not report.balanced({"ledger": rows})
    report.to_stderr(text)
    assert capsys.readouterr().err == text


def test_an_empty_ledger_says_so():
    text = report.table({"log_id": "x", "ledger": []})
    assert text == "ledger of log x: no records were accepted\n"


@pytest.mark.parametrize(
    ("settled", "fields", "level"),
    [
        (True, {}, "INFO"),
        (False, {"left_in_log": 5}, "WARNING"),  # the next process delivers it
        (False, {"dropped": {"shutdown": 5}}, "ERROR"),
        (False, {"in_flight": 5}, "ERROR"),
        (True, {"imbalance": 3}, "ERROR"),
    ],
)
def test_the_ledger_is_also_one_log_line(caplog, settled, fields, level):
    with caplog.at_level(logging.INFO, logger="sinks.report"):
        stats = {"log_id": "x", "ledger": [entry(**fields)]}
        report.log(stats, settled=settled)
    (line,) = caplog.records
    assert line.levelname == level
    assert line.balanced is ("imbalance" not in fields)
    assert line.left_in_log == fields.get("left_in_log", 0)


# --- problems ------------------------------------------------------------------------------


@pytest.mark.django_db
def test_problems_of_the_rows():
    SinkConfig.objects.all().delete()
    (found,) = problems.found()
    assert found.title == "No sink is enabled"
    assert found.url
    memory = "sinks.backends.memory.MemorySink"
    row = SinkConfig.objects.create(name="opt", backend=memory, required=False)
    assert [one.title for one in problems.found()] == ["No sink is required"]
    row.required = True
    row.save()
    assert problems.found() == []
    SinkConfig.objects.create(
        name="risky", backend="sinks.backends.file.FileSink", options={"fsync": "never"}
    )
    SinkConfig.objects.create(name="broken", backend="nosuch.Sink")
    assert [one.title for one in problems.found()] == ["Sink risky: a risk in its options"]


def test_metrics_survive_a_sink_they_do_not_know(engine):
    metrics = EngineMetrics(engine, into=Metrics(CollectorRegistry()))
    for _ in range(3):
        metrics.batch_closed(batch(records(1)))
    metrics.batch_settled(SimpleNamespace(sink="x", log_id="x", number=-1), 1, 0, 0.0)  # type: ignore[arg-type]
