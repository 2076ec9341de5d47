"""The engine alone, in this process, everything on: tenants, adaptive sizes, autoscaler, ledger.

What comes in is routed by level to two sinks that keep nothing.  One figure for requests, one for
records that come one at a time through an inlet, one for offers of a single record, which cost as
much as those of hundreds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.figure import Figure
from benchmarks.plan import Plan
from pipeline.batching.adaptive import AdaptiveSettings
from pipeline.engine import Engine
from pipeline.errors import Saturated
from pipeline.ids import RecordIds
from pipeline.intake.router import Route
from pipeline.record import ERROR, INFO, Batch, Record, encode_records
from pipeline.settings import PipelineSettings
from pipeline.sink import Written
from pipeline.spec import PipelineSpec

TENANTS = ("apples", "pears", "plums", "quinces")
REQUEST = 1_000
_PAYLOAD = b'{"level":"INFO","service":"cart","message":"' + b"x" * 140 + b'"}'
_SETTINGS = PipelineSettings(adaptive=AdaptiveSettings(batch=True, concurrency=True))


class _Nowhere:
    def open(self) -> None: ...

    def write(self, batch: Batch) -> Written:
        return Written(stored=batch.count)

    def abort(self) -> None: ...

    def close(self) -> None: ...


def measure(plan: Plan) -> list[Figure]:
    figures = [
        Figure(
            name=f"requests of {REQUEST:,} by level into two sinks, everything on",
            unit="records/s",
            goal=0.5,
            or_value=3_000_000,
            baseline_name="MessagePack encodes the same records, and nothing else",
        ),
        Figure(
            name="single records through an inlet, everything on",
            unit="records/s",
            goal=0.1,
            or_value=400_000,
            baseline_name="a list takes the same records one by one",
        ),
        Figure(
            name="offers of one record, everything on",
            unit="records/s",
            goal=0.0,
            baseline_name="a list takes the same records one by one",
        ),
    ]
    records = _records(REQUEST)
    for repetition in range(plan.repetitions):
        plan.say(f"engine: repetition {repetition + 1} of {plan.repetitions}")
        requests = plan.records * 20 // REQUEST
        figures[0].add(_rate(_requests, records, requests), _encoding(records, requests))
        singles = plan.records * 2 // REQUEST
        figures[1].add(_rate(_inlet, records, singles), _list(records, singles))
        few = max(1, plan.records // 5 // REQUEST)
        figures[2].add(_rate(_singles, records, few), _list(records, few))
    return figures


def _records(count: int) -> list[Record]:
    """One in ten is an error."""
    return [
        Record(
            1_760_000_000_000_000 + n, INFO if n % 10 else ERROR, "cart", "x" * 40, "", "", _PAYLOAD
        )
        for n in range(count)
    ]


def _rate(feed: Callable[[Engine, list[Record], int], None], of: list[Record], times: int) -> float:
    """Records a second, until the last of them has settled in both sinks."""
    engine = Engine(log_id="benchmark", ids=RecordIds(node=1))
    routes = {"all": Route(), "errors": Route(min_severity=ERROR)}
    engine.configure(
        PipelineSpec(
            key=key,
            name=key,
            sink_factory=_Nowhere,
            route=route,
            settings=_SETTINGS,
            fingerprint="1",
        )
        for key, route in routes.items()
    )
    engine.start()
    started = time.perf_counter()
    feed(engine, of, times)
    if not engine.drain(60.0):
        raise RuntimeError("the engine did not drain within 60 s")
    seconds = time.perf_counter() - started
    engine.stop(10.0)
    return len(of) * times / seconds


def _requests(engine: Engine, records: list[Record], times: int) -> None:
    for number in range(times):
        _patiently(lambda: engine.offer(type="log", tenant=TENANTS[number % 4], records=records))  # noqa: B023


def _inlet(engine: Engine, records: list[Record], times: int) -> None:
    put = engine.inlet(type="log", tenant=TENANTS[0]).put
    for _ in range(times):
        for record in records:
            try:
                put(record)
            except Saturated:
                _patiently(lambda: put(record))  # noqa: B023


def _singles(engine: Engine, records: list[Record], times: int) -> None:
    for _ in range(times):
        for record in records:
            engine.offer(type="log", tenant=TENANTS[0], records=[record])


def _patiently(offer: Callable[[], object]) -> None:
    while True:
        try:
            offer()
            return
        except Saturated:
            time.sleep(0.001)


def _encoding(records: list[Record], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        encode_records(records)
    return len(records) * times / (time.perf_counter() - started)


def _list(records: list[Record], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        kept: list[Record] = []
        for record in records:
            kept.append(record)  # noqa: PERF402 - one at a time is what is compared
    return len(records) * times / (time.perf_counter() - started)
