"""Jobs, types and a downstream service that does as it is told, for tests of an attempt."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from jobs.downstream.calls import Answer, CallRequest
from jobs.execution.executor import Executor
from jobs.execution.handlers import Handlers
from jobs.execution.interruption import Interruption
from jobs.store.protocol import Again, Claimed, Ended, Progress, StepRecord
from jobs.types.spec import DownstreamSpec, StepSpec, TypeSpec
from pipeline.delivery.retry import RetryPolicy
from pipeline.runtime.clock import FakeClock

GENEROUS_S = 60.0
JOB_ID = UUID("019a0000-0000-7000-8000-000000000001")
SERVICE = DownstreamSpec(id=1, name="idv", base_url="http://127.0.0.1:1")

Act = Callable[[CallRequest, Interruption], Any]


class Service:
    """Stands for `Downstreams`: acts by path, and keeps what it was asked.

    An action is a value to answer, an exception to raise, or a function of request and interruption
    that does either.
    """

    def __init__(self, **acts: Any) -> None:
        self.acts: dict[str, Any] = {f"/{name}": act for name, act in acts.items()}
        self.requests: list[CallRequest] = []
        self.left_s: list[float] = []
        self.threads: set[str] = set()
        self._lock = threading.Lock()

    def __call__(
        self,
        spec: DownstreamSpec,
        request: CallRequest,
        *,
        left_s: float,
        interruption: Interruption,
    ) -> Answer:
        with self._lock:
            self.requests.append(request)
            self.left_s.append(left_s)
            self.threads.add(threading.current_thread().name)
        act = self.acts.get(request.path, {"ok": True})
        if callable(act) and not isinstance(act, type):
            act = act(request, interruption)
        if isinstance(act, Exception):
            raise act
        return act if isinstance(act, Answer) else Answer(status=200, body=act, duration_s=0.0)

    @property
    def paths(self) -> list[str]:
        return [one.path for one in self.requests]


@dataclass
class Written:
    """What an attempt handed in, in order; fenced off from `fenced_at` writes on."""

    progress: list[tuple[Progress, bool]] = field(default_factory=list)
    fenced_at: int | None = None

    def __call__(self, progress: Progress, wait: bool) -> bool:
        self.progress.append((progress, wait))
        return self.fenced_at is None or len(self.progress) <= self.fenced_at

    def said(self) -> list[tuple[str, str, bool]]:
        return [(one.name, one.state, wait) for said, wait in self.progress for one in said.steps]


def call(name: str, *, stage: int = 1, **fields: Any) -> StepSpec:
    fields.setdefault("path", f"/{name}")
    return StepSpec(name=name, stage=stage, downstream=SERVICE, **fields)


def handled(name: str, function: str, *, stage: int = 1, **fields: Any) -> StepSpec:
    path = f"tests.jobs.execution.handled.{function}"
    return StepSpec(name=name, stage=stage, handler=path, **fields)


def a_type(*steps: StepSpec, **fields: Any) -> TypeSpec:
    fields.setdefault("retry", RetryPolicy(base_s=1.0, cap_s=60.0))
    fields.setdefault("max_attempts", 3)
    return TypeSpec(id=1, name="onboarding", steps=steps, **fields)


def a_job(**fields: Any) -> Claimed:
    values: dict[str, Any] = {
        "id": JOB_ID,
        "type_id": 1,
        "claim": 7,
        "attempts": 0,
        "payload": {"user_id": 456},
        "tenant": "default",
        "priority": 5,
        "correlation_id": "job-123",
        "service": "shop",
        "traceparent": "",
        "webhook_url": "",
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "deadline_in_s": 3600.0,
        "waited_s": 0.0,
    }
    return Claimed(**values | fields)


def record(name: str, state: str, **fields: Any) -> StepRecord:
    return StepRecord(name=name, state=state, **fields)


class Bench:
    """An executor with its service and clock; `run` runs one attempt on the calling thread."""

    def __init__(self, service: Service, *, step_threads: int = 8) -> None:
        self.service = service
        self.clock = FakeClock()
        self.written = Written()
        self.interruption = Interruption(clock=self.clock)
        self.executor = Executor(
            call=service,
            handlers=Handlers(patterns=["tests.jobs.execution.handled.*"]),
            clock=self.clock,
            max_result_bytes=10_000,
            step_threads=step_threads,
            jitter=lambda: 1.0,
        )

    def run(self, spec: TypeSpec, job: Claimed | None = None) -> Ended | Again | None:
        return self.executor.run(
            job or a_job(),
            spec,
            worker="w-1",
            record=self.written,
            interruption=self.interruption,
        )

    def steps(self, done: Ended | Again | None) -> Mapping[str, StepRecord]:
        """How each step stands after all that was written."""
        found = {one.name: one for said, _ in self.written.progress for one in said.steps}
        return found | {one.name: one for one in (done.steps if done else ())}


@contextmanager
def bench(service: Service | None = None, **options: Any) -> Iterator[Bench]:
    made = Bench(service or Service(), **options)
    try:
        yield made
    finally:
        made.executor.close(timeout_s=0.0)
