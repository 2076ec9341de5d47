"""When to let a pipeline find its batch size and its writes at once: each on against both off.

The engine alone, in this process, against sinks that behave as sinks do: what a write takes is
slept, so that the machine is not what is measured.  Off means the settings' own 5,000 records and
4 writes at once.  Each run is given time to settle before it is measured.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.comparison import Comparison, Panel
from benchmarks.figure import Figure
from benchmarks.plan import Plan
from pipeline.batching.adaptive import AdaptiveSettings
from pipeline.engine import Engine
from pipeline.errors import RetryableError, Saturated
from pipeline.ids import RecordIds
from pipeline.intake.router import Route
from pipeline.record import Batch, Record
from pipeline.settings import PipelineSettings
from pipeline.sink import Written
from pipeline.spec import PipelineSpec

_WORKERS = 4
_OFFER = 1_000
_PAYLOAD = b'{"level":"INFO","service":"cart","message":"' + b"x" * 140 + b'"}'

OFF = AdaptiveSettings()
SIZE = AdaptiveSettings(batch=True)
WRITES = AdaptiveSettings(concurrency=True)
BOTH = AdaptiveSettings(batch=True, concurrency=True)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A sink by the seconds that a write of `count` records takes beside `others` at once."""

    name: str
    seconds: Callable[[int, int], float]
    adaptive: AdaptiveSettings
    refuses_above: int = 0


CASES = (
    Case(
        name="batch size, a cost of each batch",
        seconds=lambda count, others: 0.05 + count * 2e-6,
        adaptive=SIZE,
    ),
    Case(
        name="batch size, a cost of each record",
        seconds=lambda count, others: 0.002 + count * 20e-6,
        adaptive=SIZE,
    ),
    Case(
        name="batch size, large ones are slow",
        seconds=lambda count, others: (0.01 + count * 20e-6) * max(1.0, count / 1_000),
        adaptive=SIZE,
    ),
    Case(
        name="writes at once, the sink bears all",
        seconds=lambda count, others: 0.02,
        adaptive=WRITES,
    ),
    Case(
        name="writes at once, round trips vary",
        seconds=lambda count, others: 0.02 * random.lognormvariate(0.0, 0.3),
        adaptive=WRITES,
    ),
    Case(
        name="writes at once, more than two disturb one another",
        seconds=lambda count, others: 0.02 * max(1.0, (1 + others) / 2) ** 2,
        adaptive=WRITES,
    ),
    Case(
        name="writes at once, the third is refused for half a second",
        seconds=lambda count, others: 0.02,
        adaptive=WRITES,
        refuses_above=2,
    ),
    Case(
        name="both, large ones are slow and more than two disturb one another",
        seconds=lambda count, others: (
            (0.01 + count * 20e-6) * max(1.0, count / 1_000) * max(1.0, (1 + others) / 2) ** 2
        ),
        adaptive=BOTH,
    ),
)


def measure(plan: Plan) -> list[Figure]:
    settle_s, measured_s = (3.0, 2.0) if plan.quick else (6.0, 4.0)
    figures = []
    rates = Panel(title="Stored", unit="records/s", log=True)
    slowest = Panel(title="One write, p95", unit="ms", less_is_better=True, log=True)
    for case in CASES:
        figure = Figure(
            name=f"adaptive {case.name}",
            unit="records/s",
            goal=0.0,
            baseline_name=f"batches of 5,000 and {_WORKERS} writes at once",
        )
        found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
        for repetition in range(plan.repetitions):
            plan.say(f"adaptive, {case.name}: {repetition + 1} of {plan.repetitions}")
            order = (True, False) if repetition % 2 == 0 else (False, True)
            for on in order:
                adaptive = case.adaptive if on else OFF
                found[on].append(_run(case, adaptive, settle_s=settle_s, measured_s=measured_s))
            figure.add(found[True][-1]["rate"], found[False][-1]["rate"])
        for on, how in ((True, "on"), (False, "off")):
            rates.add(f"{case.name}: {how}", [one["rate"] for one in found[on]])
            slowest.add(f"{case.name}: {how}", [one["write_ms_p95"] for one in found[on]])
        figure.notes = {
            f"{name}_{how}": [round(one[name], 1) for one in found[on]]
            for on, how in ((True, "on"), (False, "off"))
            for name in ("batch_limit", "write_limit", "write_ms_p95", "refused_share")
        }
        figures.append(figure)
    plan.show(
        Comparison(
            name="adaptive",
            title="Adaptive batch size and concurrency, on and off",
            setting=f"The engine alone against simulated sinks, {_WORKERS} workers, always more "
            f"to write than they can. Medians of {plan.repetitions} repetitions.",
            panels=[rates, slowest],
        )
    )
    return figures


class _Sink:
    """Sleeps as long as its case says; `_lock` guards the counts."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._lock = threading.Lock()
        self._inside = 0
        self.stored = self.writes = self.refused = 0

    def open(self) -> None: ...

    def write(self, batch: Batch) -> Written:
        case = self._case
        with self._lock:
            self._inside += 1
            inside = self._inside
            self.writes += 1
            refuses = 0 < case.refuses_above < inside
            self.refused += refuses
        try:
            if refuses:
                time.sleep(0.002)
                raise RetryableError("too many requests", retry_after_s=0.5)
            time.sleep(case.seconds(batch.count, inside - 1))
        finally:
            with self._lock:
                self._inside -= 1
        with self._lock:
            self.stored += batch.count
        return Written(stored=batch.count)

    def abort(self) -> None: ...

    def close(self) -> None: ...


def _run(
    case: Case, adaptive: AdaptiveSettings, *, settle_s: float, measured_s: float
) -> dict[str, float]:
    """Keep a pipeline full, and take its rate once it has settled."""
    sink = _Sink(case)
    engine = Engine(log_id="benchmark", ids=RecordIds(node=1))
    engine.configure(
        [
            PipelineSpec(
                key="simulated",
                name="simulated",
                sink_factory=lambda: sink,
                route=Route(types=None, tenants=None),
                required=True,
                paused=False,
                settings=PipelineSettings(
                    capacity_records=200_000,
                    min_workers=_WORKERS,
                    max_workers=_WORKERS,
                    adaptive=adaptive,
                ),
                fingerprint="1",
            )
        ]
    )
    engine.start()
    records = [
        Record(1_760_000_000_000_000 + n, 9, "cart", "x" * 40, "", "", _PAYLOAD)
        for n in range(_OFFER)
    ]
    try:
        _feed(engine, records, settle_s)
        stored, writes, refused, begun = sink.stored, sink.writes, sink.refused, time.perf_counter()
        _feed(engine, records, measured_s)
        seconds = time.perf_counter() - begun
        stats: dict[str, Any] = engine.stats()
        figures = stats["pipelines"][0]
        return {
            "rate": (sink.stored - stored) / seconds,
            "batch_limit": figures["batch_limit"],
            "write_limit": figures["write_limit"],
            "write_ms_p95": figures["write_latency"]["p95"] * 1000,
            "refused_share": 100 * (sink.refused - refused) / max(sink.writes - writes, 1),
        }
    finally:
        engine.stop(0.1)


def _feed(engine: Engine, records: list[Record], seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        try:
            engine.offer(type="log", tenant="default", records=records)
        except Saturated:
            time.sleep(0.002)
