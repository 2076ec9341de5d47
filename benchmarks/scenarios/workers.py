"""Workers against a sink a tenth of a second away: four against one, and as many as the autoscaler
finds necessary.

Each write waits, so that the workers' number alone decides how much is stored.
"""

from __future__ import annotations

import time

from benchmarks.figure import Figure
from benchmarks.plan import Plan
from pipeline.delivery.autoscaler import AutoscaleSettings
from pipeline.engine import Engine
from pipeline.ids import RecordIds
from pipeline.observer import Observer
from pipeline.record import Batch, Record
from pipeline.settings import PipelineSettings
from pipeline.sink import Written
from pipeline.spec import PipelineSpec

LATENCY_S = 0.1
BATCH = 100
WORKERS = 4
# Offered at once: what four workers take in two seconds, and in four.
QUICK_BATCHES, BATCHES = 80, 160

_PAYLOAD = b'{"level":"INFO","service":"cart","message":"' + b"x" * 140 + b'"}'


class _Distant:
    def open(self) -> None: ...

    def write(self, batch: Batch) -> Written:
        time.sleep(LATENCY_S)
        return Written(stored=batch.count)

    def abort(self) -> None: ...

    def close(self) -> None: ...


class _Steps(Observer):
    """When the autoscaler did what."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.steps: list[str] = []

    def scaled(self, pipeline: str, workers: int, step: int, why: str) -> None:
        self.steps.append(f"{time.perf_counter() - self.started:.1f} s: {workers} workers ({why})")


def measure(plan: Plan) -> list[Figure]:
    batches = QUICK_BATCHES if plan.quick else BATCHES
    fixed = Figure(
        name=f"{WORKERS} workers, a sink {LATENCY_S:g} s away",
        unit="records/s",
        goal=3.0,
        baseline_name="one worker",
    )
    scaled = Figure(
        name=f"1 to {WORKERS} workers by the autoscaler, growth included",
        unit="records/s",
        goal=0.0,
        baseline_name="one worker",
    )
    # Ten looks a second, so that growing is over within half a second of the two or four.
    often = AutoscaleSettings(interval_s=0.1, cooldown_s=0.1)
    for repetition in range(plan.repetitions):
        plan.say(f"workers: repetition {repetition + 1} of {plan.repetitions}")
        one, _ = _rate(batches // WORKERS, PipelineSettings(max_records=BATCH, max_workers=1))
        four, _ = _rate(
            batches,
            PipelineSettings(max_records=BATCH, min_workers=WORKERS, max_workers=WORKERS),
        )
        grown, steps = _rate(
            batches, PipelineSettings(max_records=BATCH, max_workers=WORKERS, autoscale=often)
        )
        fixed.add(four, one)
        scaled.add(grown, one)
    scaled.notes = {"steps": steps}
    return [fixed, scaled]


def _rate(batches: int, settings: PipelineSettings) -> tuple[float, list[str]]:
    """Records stored a second, from the first offer to the last settled."""
    engine = Engine(log_id="benchmark", ids=RecordIds(node=1))
    engine.configure(
        [PipelineSpec(key="distant", name="distant", sink_factory=_Distant, settings=settings)]
    )
    steps = _Steps()
    engine.observe(steps)
    engine.start()
    records = [
        Record(1_760_000_000_000_000 + n, 9, "cart", "x" * 40, "", "", _PAYLOAD)
        for n in range(BATCH)
    ]
    started = steps.started = time.perf_counter()
    for _ in range(batches):
        engine.offer(type="log", tenant="default", records=records)
    # Not a drain: nothing changes in one.
    settled = engine.flush(600.0)
    seconds = time.perf_counter() - started
    engine.stop(10.0)
    if not settled:
        raise RuntimeError("the engine did not store everything within 600 s")
    return batches * BATCH / seconds, steps.steps
