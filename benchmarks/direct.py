"""The engine and one sink of an installation, without HTTP: `python -m benchmarks.direct '{…}'`.

A process of its own, because it needs Django with the installation's environment.  For each of
`sizes` it stores `records` records in batches of that many with `workers` workers, and prints one
JSON object: {"results": [{"size": …, "rate": records a second, "write_ms_p95": …, …}]}.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from benchmarks.rows import bodies
from benchmarks.tally import percentile
from pipeline.engine import Engine
from pipeline.errors import Saturated
from pipeline.ids import RecordIds
from pipeline.intake.router import Route
from pipeline.record import Batch, Record
from pipeline.settings import GIB, PipelineSettings
from pipeline.sink import Sink, Written
from pipeline.spec import PipelineSpec

_REQUEST = 1000
_DRAIN_S = 300.0


class Watched(Sink):
    """A sink whose writes are timed; `_lock` guards the times."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self.writes_ms: list[float] = []
        self.stored = 0
        self.open, self.abort, self.close = sink.open, sink.abort, sink.close  # type: ignore[method-assign]

    def write(self, batch: Batch) -> Written | None:
        started = time.perf_counter()
        written = self._sink.write(batch)
        taken = (time.perf_counter() - started) * 1000
        with self._lock:
            self.writes_ms.append(taken)
            self.stored += batch.count if written is None else written.stored
        return written


def main(wanted: dict[str, Any]) -> None:
    import django

    django.setup()
    requests = _requests()
    # The first run finds nothing warm: connections, partitions, files.
    _store(wanted, requests, size=wanted["sizes"][0], records=min(wanted["records"], 20_000))
    results = [
        {"size": size} | _store(wanted, requests, size=size, records=wanted["records"])
        for size in wanted["sizes"]
    ]
    print(json.dumps({"results": results}))


def _requests() -> list[list[Record]]:
    """A few requests as the front door would make them, of records of now."""
    from ingest.wire.decode import Limits, decode
    from ingest.wire.formats import Format
    from ingest.wire.kinds import LOGS

    made = []
    now = time.time_ns() // 1000
    for body in bodies(_REQUEST, count=10):
        decoded = decode(
            body,
            format=Format.LINES,
            kind=LOGS,
            tenant="default",
            any_tenant=False,
            arrival_us=now,
            limits=Limits(max_records=_REQUEST, max_record_bytes=1 << 20, max_depth=64),
        )
        made.append(decoded.records["default"])
    return made


def _store(
    wanted: dict[str, Any], requests: list[list[Record]], *, size: int, records: int
) -> dict[str, Any]:
    from sinks.registry import make_sink

    sink = Watched(make_sink(wanted["backend"], wanted["options"], name="measured"))
    engine = Engine(log_id=f"b{time.time_ns():x}", ids=RecordIds(node=1))
    engine.configure(
        [
            PipelineSpec(
                key="measured",
                name="measured",
                sink_factory=lambda: sink,
                route=Route(types=None, tenants=None),
                settings=PipelineSettings(
                    max_records=size,
                    max_bytes=64 << 20,
                    max_wait_s=0.2,
                    backlog_max_bytes=GIB,
                    min_workers=wanted["workers"],
                    max_workers=wanted["workers"],
                ),
            )
        ]
    )
    engine.start()
    started = time.perf_counter()
    cpu = time.process_time()
    for n in range(records // _REQUEST):
        while True:
            try:
                engine.offer(type="log", tenant="default", records=requests[n % len(requests)])
                break
            except Saturated:
                time.sleep(0.001)
    if not engine.drain(_DRAIN_S):
        raise RuntimeError(f"the engine did not drain within {_DRAIN_S:g} s")
    seconds = time.perf_counter() - started
    cpu = time.process_time() - cpu
    engine.stop(10.0)
    count = records // _REQUEST * _REQUEST
    if sink.stored != count:
        raise RuntimeError(f"{count} records offered, {sink.stored} stored")
    return {
        "rate": count / seconds,
        "cpu_us_a_record": cpu * 1e6 / count,
        "writes": len(sink.writes_ms),
        "write_ms_p50": percentile(sink.writes_ms, 0.5),
        "write_ms_p95": percentile(sink.writes_ms, 0.95),
    }


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
