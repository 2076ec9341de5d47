"""One trace a job, whoever runs its attempts; a span for each, and for each step below it."""

from __future__ import annotations

import dataclasses
import threading
from datetime import UTC, datetime
from uuid import UUID

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import StatusCode

from jobs import tracing
from jobs.execution.executor import Executor
from jobs.execution.handlers import Handlers
from jobs.execution.interruption import Interruption
from jobs.ids import new_job_id
from jobs.store.protocol import Claimed, Ended
from jobs.tracing import JobTracing, derived, parsed, traceparent_of, written
from jobs.types.spec import StepSpec, TypeSpec
from pipeline.runtime.clock import SystemClock

SENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HERE = "tests.jobs.test_tracing"
WAIT_S = 60


def job(**fields: object) -> Claimed:
    given = Claimed(
        id=new_job_id(),
        type_id=1,
        claim=3,
        attempts=1,
        payload={"n": 1},
        tenant="acme",
        priority=5,
        correlation_id="job-123",
        service="",
        traceparent="",
        webhook_url="",
        created_at=datetime(2026, 5, 1, tzinfo=UTC),
        deadline_in_s=None,
        waited_s=0.0,
    )
    return dataclasses.replace(given, **fields)  # type: ignore[arg-type]


class Stand:
    def __init__(self, *, sample_ratio: float = 1.0) -> None:
        self.spans = InMemorySpanExporter()
        sampler = ParentBased(TraceIdRatioBased(sample_ratio))
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.tracing = JobTracing(provider=provider, sample_ratio=sample_ratio)

    def named(self, name: str):
        return [span for span in self.spans.get_finished_spans() if span.name == name]


@pytest.fixture
def stand(monkeypatch) -> Stand:
    stand = Stand()
    monkeypatch.setattr(tracing, "_current", lambda: stand.tracing)
    return stand


def test_a_submission_goes_on_from_its_sender_s_span(stand: Stand):
    kept = tracing.submitted_span(new_job_id(), "pay", SENT)
    (span,) = stand.named("submit pay")
    assert span.parent == parsed(SENT)
    assert kept == written(span.context)
    with tracing.attempt_span(job(traceparent=kept), "pay", "w1"):
        pass
    (attempt,) = stand.named("job pay")
    assert attempt.parent.span_id == span.context.span_id
    assert attempt.context.trace_id == int(SENT[3:35], 16)
    assert attempt.attributes["collector.attempt"] == 2
    assert attempt.attributes["collector.correlation_id"] == "job-123"


def test_attempts_of_a_job_that_came_without_a_trace_meet_in_one(stand: Stand):
    one, other = job(), job()
    for attempts in range(3):
        with tracing.attempt_span(dataclasses.replace(one, attempts=attempts), "pay", "w1"):
            pass
    with tracing.attempt_span(other, "pay", "w1"):
        pass
    traces = [span.context.trace_id for span in stand.named("job pay")]
    assert len(set(traces[:3])) == 1
    assert traces[3] != traces[0]


def test_a_job_s_trace_is_sampled_as_a_whole_and_as_often_as_asked(monkeypatch):
    stand = Stand(sample_ratio=0.25)
    jobs = [UUID(int=number << 64 | 0x8000 << 48 | number) for number in range(1, 401)]
    for one in jobs:
        for _ in range(2):
            with stand.tracing.attempt(job(id=one), "pay", "w1"):
                pass
    traces = [span.context.trace_id for span in stand.named("job pay")]
    assert len(traces) == 2 * len(set(traces))
    assert 60 <= len(set(traces)) <= 140


def test_a_downstream_call_carries_the_step_s_span(stand: Stand):
    one = job(traceparent=SENT)
    with tracing.attempt_span(one, "pay", "w1"), tracing.step_span("charge") as span:
        assert traceparent_of(one) == written(span.get_span_context())
    assert traceparent_of(one) == SENT
    assert traceparent_of(job()) == ""


def test_a_failure_is_marked(stand: Stand):
    with tracing.attempt_span(job(), "pay", "w1") as span:
        tracing.failed(span, "x" * 10_000)
    (ended,) = stand.named("job pay")
    assert ended.status.status_code is StatusCode.ERROR
    assert len(ended.status.description) == 500


def test_while_off_nothing_is_made_and_the_sender_s_word_is_kept(settings):
    assert settings.COLLECTOR.tracing.otlp_endpoint == ""
    assert tracing.submitted_span(new_job_id(), "pay", SENT) == SENT
    assert tracing.submitted_span(new_job_id(), "pay") == ""
    one = job(traceparent=SENT)
    with tracing.attempt_span(one, "pay", "w1") as attempt, tracing.step_span("charge") as step:
        assert not attempt.is_recording()
        assert not step.is_recording()
        assert traceparent_of(one) == SENT


@pytest.mark.parametrize(
    "text",
    ["", "x", "00-0-0-01", SENT[:-1], SENT.replace("0af7", "zzzz"), f"00-{'0' * 32}-{'0' * 16}-01"],
    ids=["empty", "word", "short", "cut", "no-hex", "zero"],
)
def test_what_is_no_traceparent_begins_anew(text: str, stand: Stand):
    assert parsed(text) is None
    one = job(traceparent=text)
    with tracing.attempt_span(one, "pay", "w1"):
        pass
    (span,) = stand.named("job pay")
    assert span.context.trace_id == derived(one.id, 1.0).trace_id


_together = threading.Barrier(2)


def telling(context) -> dict[str, object]:
    """A step: both of a stage are under way, each on a thread of its own."""
    _together.wait(WAIT_S)
    return dict(structlog.contextvars.get_contextvars())


def test_steps_on_several_threads_are_spans_of_one_attempt_and_log_for_their_job(stand: Stand):
    clock = SystemClock()
    executor = Executor(
        call=lambda *_, **__: pytest.fail("nothing is called"),
        handlers=Handlers(patterns=[f"{HERE}.*"]),
        clock=clock,
    )
    steps = tuple(StepSpec(name=name, handler=f"{HERE}.telling") for name in ("one", "two"))
    one = job()
    ended = executor.run(
        one,
        TypeSpec(id=1, name="pay", steps=steps),
        worker="w7",
        record=lambda progress, wait: True,
        interruption=Interruption(clock=clock),
    )
    assert isinstance(ended, Ended)
    assert ended.state == "succeeded"
    (attempt,) = stand.named("job pay")
    for name in ("one", "two"):
        (step,) = stand.named(f"step {name}")
        assert step.parent.span_id == attempt.context.span_id
        assert ended.result["steps"][name] == {
            "job_id": str(one.id),
            "correlation_id": "job-123",
            "worker_id": "w7",
        }
    assert structlog.contextvars.get_contextvars() == {}
