"""The engine alone, in this process: offer, batch and settle, against filling the same lists.

Not one of the goals over HTTP; it tells where time went when those fall.  Besides, the ways of
batching side by side: `benchmarks.scenarios.batchers`.
"""

from __future__ import annotations

import time

from benchmarks.figure import Figure
from benchmarks.plan import Plan
from benchmarks.scenarios import batchers
from pipeline.engine import Engine
from pipeline.errors import Saturated
from pipeline.ids import RecordIds
from pipeline.intake.router import Route
from pipeline.record import Batch, Record
from pipeline.settings import PipelineSettings
from pipeline.sink import Written
from pipeline.spec import PipelineSpec

_PAYLOAD = b'{"level":"INFO","service":"cart","message":"' + b"x" * 140 + b'"}'


class _Nowhere:
    def open(self) -> None: ...

    def write(self, batch: Batch) -> Written:
        return Written(stored=batch.count)

    def abort(self) -> None: ...

    def close(self) -> None: ...


def measure(plan: Plan) -> list[Figure]:
    return [
        _figure(plan, batch=1000, offers=max(plan.records // 1000, 1) * 2),
        _figure(plan, batch=1, offers=plan.records // 5),
        *batchers.measure(plan),
    ]


def _figure(plan: Plan, *, batch: int, offers: int) -> Figure:
    figure = Figure(
        name=f"engine alone, offers of {batch}",
        unit="records/s",
        goal=0.0,
        baseline_name="a list takes the same records",
    )
    records = [
        Record(1_760_000_000_000_000 + n, 9, "cart", "x" * 40, "", "", _PAYLOAD)
        for n in range(batch)
    ]
    for repetition in range(plan.repetitions):
        plan.say(f"batcher, offers of {batch}: repetition {repetition + 1} of {plan.repetitions}")
        figure.add(_engine_rate(records, offers), _list_rate(records, offers))
    return figure


def _engine_rate(records: list[Record], offers: int) -> float:
    engine = Engine(log_id="benchmark", ids=RecordIds(node=1))
    engine.configure(
        [
            PipelineSpec(
                key="null",
                name="null",
                sink_factory=_Nowhere,
                route=Route(types=None, tenants=None),
                required=True,
                paused=False,
                settings=PipelineSettings(),
                fingerprint="1",
            )
        ]
    )
    engine.start()
    started = time.perf_counter()
    for _ in range(offers):
        while True:
            try:
                engine.offer(type="log", tenant="default", records=records)
                break
            except Saturated:
                time.sleep(0.001)
    if not engine.drain(60.0):
        raise RuntimeError("the engine did not drain within 60 s")
    seconds = time.perf_counter() - started
    engine.stop(10.0)
    return offers * len(records) / seconds


def _list_rate(records: list[Record], offers: int) -> float:
    started = time.perf_counter()
    kept: list[Record] = []
    for _ in range(offers):
        for record in records:
            kept.append(record)  # noqa: PERF402 - one at a time is what is compared
        if len(kept) > 400_000:
            kept.clear()
    return offers * len(records) / (time.perf_counter() - started)
