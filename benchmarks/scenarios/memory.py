"""Memory at ten times the load that the sink takes: early in the overload, and after a minute."""

from __future__ import annotations

import time

from benchmarks.figure import Figure
from benchmarks.load import GeneratorProcess
from benchmarks.plan import Plan
from benchmarks.server import Server, ServerFailed

SINK_RECORDS_PER_S = 10_000
TIMES = 10

_SINKS = [
    {
        "name": "slow",
        "backend": "benchmarks.slow.SlowSink",
        "options": {"records_per_s": SINK_RECORDS_PER_S},
    }
]


def measure(plan: Plan) -> list[Figure]:
    first_s, last_s = plan.memory_marks_s
    figure = Figure(
        name=f"memory at {TIMES} times the sink's rate, after {last_s:g} s",
        unit="MiB",
        goal=1.2,
        at_most=True,
        baseline_name=f"after {first_s:g} s",
    )
    environ = {"COLLECTOR_SINK_ALLOWED_PATHS": "sinks.backends.*,benchmarks.slow.*"}
    with Server(sinks=_SINKS, environ=environ) as server:
        plan.say(f"memory: {last_s:g} s of overload")
        offered = SINK_RECORDS_PER_S * TIMES
        with GeneratorProcess(
            url=server.url,
            records=int(offered * last_s * 2),
            batch=plan.batch,
            clients=plan.clients * 2,
            rate=offered,
            duration_s=last_s + 2,
            # What is refused is offered again at once: the load stays ten times the sink's.
            retry_pause_s=0.05,
            retry_for_s=1.0,
        ) as generator:
            generator.go()
            started = time.monotonic()
            samples = []
            while (elapsed := time.monotonic() - started) < last_s:
                time.sleep(min(1.0, last_s - elapsed))
                samples.append((time.monotonic() - started, server.rss_bytes() / 2**20))
            result = generator.result()
    early = next(rss for elapsed, rss in samples if elapsed >= first_s)
    if not result["statuses"].get("429"):
        raise ServerFailed(f"the load was no overload: nothing was refused: {result}")
    figure.add(samples[-1][1], early)
    figure.notes = {
        "offered_records_per_s": offered,
        "refused_requests": result["statuses"]["429"],
        "accepted_records": result["records_accepted"],
        "rss_mib": [round(rss, 1) for _, rss in samples],
    }
    return [figure]
