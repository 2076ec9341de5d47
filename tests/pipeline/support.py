"""What the engine's tests share: records, sinks that do as they are told, engines that end.

Nothing here sleeps: a test waits on a sink, on `Signals` or on a receipt, each with a generous
limit that only a failure reaches.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.delivery.retry import RetryPolicy
from pipeline.errors import SinkError
from pipeline.ids import RecordIds
from pipeline.intake.router import Route
from pipeline.log.frame import Frame, Share
from pipeline.log.log import Log
from pipeline.log.segment import Segment
from pipeline.receipt import Receipt
from pipeline.record import INFO, Batch, Record, encode_records, encoded_sizes
from pipeline.settings import PipelineSettings
from pipeline.sink import Sink, Written
from pipeline.spec import PipelineSpec

PATIENCE_S = 180.0  # reached only by a failure

Step = BaseException | Callable[[Batch], Written | None] | None

_names = itertools.count()


def record(message: str = "", *, severity: int = INFO, payload: bytes = b"{}") -> Record:
    return Record(
        timestamp_us=1_760_000_000_000_000,
        severity=severity,
        service="svc",
        message=message,
        trace_id="",
        span_id="",
        payload=payload,
    )


def records(count: int, *, severity: int = INFO, prefix: str = "m") -> list[Record]:
    """Records of equal weight, whose messages tell them apart everywhere."""
    return [record(f"{prefix}-{next(_names):010}", severity=severity) for _ in range(count)]


def weight(of: Sequence[Record]) -> int:
    """Encoded bytes, as the engine counts them."""
    return sum(encoded_sizes(of))


def frame(
    of: Sequence[Record],
    *shares: Share,
    tenant: str = "t",
    arrived_s: float = 1000.0,
    id_base: int = 0,
) -> Frame:
    return Frame(
        type="log",
        tenant=tenant,
        request_id="",
        traceparent="",
        received_us=0,
        arrived_s=arrived_s,
        id_base=id_base or RecordIds(node=1).take(len(of)),
        count=len(of),
        payload=encode_records(of),
        shares=shares,
        receipt=Receipt(count=len(of), owed=1, request_flush=lambda receipt: None),
    )


def share(
    of: Sequence[Record], *, sink: str = "a", min_severity: int = 0, required: bool = True
) -> Share:
    """The share that an engine would make of these records."""
    passing = [one for one in of if one.severity >= min_severity]
    filtered = len(passing) < len(of)
    return Share(
        sink=sink,
        count=len(passing),
        nbytes=weight(passing),
        min_severity=min_severity if filtered else 0,
        required=required,
    )


def segments(log: Log) -> list[Segment]:
    """The chain, walked forward; it must read the same backward."""
    chain, segment = [], log._chain.first
    while True:
        chain.append(segment)
        if segment.next is None:
            break
        assert segment.next.prev is segment
        segment = segment.next
    assert chain[0].prev is None
    assert chain[-1] is log._chain.last
    assert {one.number: one for one in chain} == log._chain.segments
    return chain


class ScriptedSink:
    """Stores in memory; takes one step of its script per write first, while it has any.

    A step is an error to raise, a function of the batch, or None for success.  Counts each
    message it stored, so that a loss or a duplicate shows.
    """

    def __init__(self, *script: Step, always: Step = None) -> None:
        self._changed = threading.Condition()
        self._script = list(script)
        self._always = always
        self.batches: list[Batch] = []
        self.messages: list[list[str]] = []
        self.stored: Counter[str] = Counter()
        self.opened = self.closed = self.aborted = 0

    def open(self) -> None:
        with self._changed:
            self.opened += 1

    def write(self, batch: Batch) -> Written | None:
        messages = [one.message for one in batch.records]
        with self._changed:
            step = self._script.pop(0) if self._script else self._always
        answer = None
        if isinstance(step, BaseException):
            raise step
        if step is not None:
            answer = step(batch)
        with self._changed:
            self.batches.append(batch)
            self.messages.append(messages)
            self.stored.update(messages)
            self._changed.notify_all()
        return answer

    def abort(self) -> None:
        with self._changed:
            self.aborted += 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self.closed += 1
            self._changed.notify_all()

    def heal(self) -> None:
        """Succeed from now on."""
        with self._changed:
            self._script, self._always = [], None

    def await_stored(self, count: int) -> None:
        self.wait_for(lambda: sum(self.stored.values()) >= count)

    def wait_for(self, what: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(what, PATIENCE_S), f"waited in vain; {self.stored=}"


class HeldSink(ScriptedSink):
    """Each write waits until it is let go; `entered` tells how many wait or went through."""

    def __init__(self, *, obeys_abort: bool = True) -> None:
        super().__init__()
        self._obeys_abort = obeys_abort
        self._go = threading.Event()
        self._writes = 0
        self._fails = False

    def write(self, batch: Batch) -> Written | None:
        with self._changed:
            self._writes += 1
            self._changed.notify_all()
        assert self._go.wait(PATIENCE_S), "nobody let the write go"
        if self._fails:
            raise SinkError("the write was aborted")
        return super().write(batch)

    def await_writes(self, count: int) -> None:
        """Until so many writes have begun."""
        self.wait_for(lambda: self._writes >= count)

    @property
    def writes(self) -> int:
        return self._writes

    def let_go(self, *, failing: bool = False) -> None:
        self._fails = self._fails or failing
        self._go.set()

    def abort(self) -> None:
        super().abort()
        if self._obeys_abort:
            self._fails = True
            self._go.set()


def spec(
    sink: Sink | Callable[[], Sink],
    *,
    key: str = "a",
    name: str = "",
    route: Route | None = None,
    required: bool = True,
    paused: bool = False,
    fingerprint: str = "1",
    misconfigured: str = "",
    retry: RetryPolicy | None = None,
    **settings: Any,
) -> PipelineSpec:
    """A pipeline of one worker, with backoff of 1 s and jitter, unless told otherwise."""
    settings.setdefault("max_workers", 1)
    settings["retry"] = retry or RetryPolicy(base_s=1.0, cap_s=1.0)
    return PipelineSpec(
        key=key,
        name=name or key,
        sink_factory=sink if callable(sink) else lambda: sink,
        route=route or Route(),
        required=required,
        paused=paused,
        settings=PipelineSettings(**settings),
        fingerprint=fingerprint,
        misconfigured=misconfigured,
    )
