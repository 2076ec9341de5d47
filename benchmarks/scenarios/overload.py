"""Overload with well-behaved clients: goodput, the time inside the server, what the control costs.

Open loop; clients come back when Retry-After says, plus jitter.  The sink takes a given number of
records a second, so that its capacity is known; it holds one second's worth.
"""

from __future__ import annotations

import json
import re
import time
import urllib.request
from typing import Any

from benchmarks.figure import Figure
from benchmarks.load import GeneratorProcess, run_load
from benchmarks.plan import Plan
from benchmarks.server import Server, ServerFailed

SINK_RECORDS_PER_S = 20_000
BATCH = 100
RAMP_S = 3.0
COST_TURNS = 10
_ALLOWED = {"COLLECTOR_SINK_ALLOWED_PATHS": "sinks.backends.*,benchmarks.slow.*"}
_PIPELINE = {"capacity_records": SINK_RECORDS_PER_S, "max_records": 1_000, "max_wait_s": 0.05}
_SLOW = {
    "name": "slow",
    "backend": "benchmarks.slow.SlowSink",
    "options": {"records_per_s": SINK_RECORDS_PER_S},
    "pipeline": _PIPELINE,
}
_BUCKET = re.compile(
    r'^ingest_seconds_bucket\{(?=[^}]*outcome="accepted")[^}]*le="([^"]+)"[^}]*\} (\S+)', re.M
)


def measure(plan: Plan) -> list[Figure]:
    return [*_overload(plan), _dead(plan), *_cost(plan)]


def _overload(plan: Plan) -> list[Figure]:
    seconds = 8.0 if plan.quick else 20.0
    goodput = Figure(
        name="goodput at twice the capacity, every record accepted in the end",
        unit="records/s",
        goal=0.9,
        baseline_name="what the sink takes",
    )
    inside = Figure(
        name="p99 from receive to acknowledge at twice the capacity",
        unit="us",
        goal=3.0,
        at_most=True,
        baseline_name="at a fifth of it",
    )
    for repetition in range(plan.repetitions):
        plan.say(f"overload: repetition {repetition + 1} of {plan.repetitions}")
        with Server(sinks=[_SLOW], environ=_ALLOWED) as server:
            run_load(**_load(server, 0.2, 2.0))  # whatever is made at the first request
            before = _buckets(server)
            run_load(**_load(server, 0.2, seconds))
            calm = _buckets(server)
            with GeneratorProcess(**_load(server, 2.0, seconds)) as generator:
                generator.go()
                time.sleep(RAMP_S)
                first, first_at = _stored(server), time.monotonic()
                time.sleep(seconds - RAMP_S)
                last, last_at = _stored(server), time.monotonic()
                result = generator.result()
            if result["records_accepted"] != result["records"] or not result["statuses"].get("429"):
                raise ServerFailed(f"no overload that ended well: {result}")
            goodput.add((last - first) / (last_at - first_at), SINK_RECORDS_PER_S)
            inside.add(
                _p99(calm, _buckets(server)) * 1e6,
                _p99(before, calm) * 1e6,
            )
            inside.notes = goodput.notes = {
                "refused_requests": result["statuses"]["429"],
                "accepted_requests": result["statuses"]["202"],
                "lost_connections": result["lost_connections"],
                "until_all_were_accepted_s": result["seconds"],
            }
    return [goodput, inside]


def _dead(plan: Plan) -> Figure:
    """The sink takes nothing at all, and ten times its capacity is offered, without patience."""
    seconds = 10.0 if plan.quick else 40.0
    figure = Figure(
        name=f"memory with a dead sink at ten times its rate, after {seconds:g} s",
        unit="MiB",
        goal=1.2,
        at_most=True,
        baseline_name="once it is full",
    )
    plan.say(f"overload: {seconds:g} s with a dead sink")
    with Server(sinks=[{**_SLOW, "paused": True}], environ=_ALLOWED) as server:
        load = _load(server, 10.0, seconds)
        with GeneratorProcess(**load, retry_pause_s=0.05, retry_for_s=1.0) as generator:
            generator.go()
            server.wait_for(
                lambda stats: any(one["refusing"] for one in stats["pipelines"]),
                what="a sink that is full",
            )
            time.sleep(2.0)
            early = server.rss_bytes() / 2**20
            time.sleep(max(0.0, seconds - 4.0))
            late = server.rss_bytes() / 2**20
            generator.stop()
            result = generator.result()
    figure.add(late, early)
    figure.notes = {"statuses": result["statuses"]}
    return figure


def _cost(plan: Plan) -> list[Figure]:
    """Ingest into a sink that keeps nothing, with every mark, limit and wait on and with none.

    In many short turns: a second of somebody else's work is as much as what is looked for.  The
    processor time tells of the cost alone, the rate also of what the sender leaves of two cores.
    """
    without = "marks at the end, no key limit, no waiting"
    rate = Figure(
        name="ingest with all of flow control on",
        unit="records/s",
        goal=0.95,
        baseline_name=without,
    )
    spent = Figure(
        name="the server's processor time with all of flow control on",
        unit="us/request",
        goal=1.05,
        at_most=True,
        baseline_name=without,
    )
    off = {"hint_watermark": 1.0, "high_watermark": 1.0, "low_watermark": 1.0}
    on = {"shed_watermark": 0.75, "shed_below": "WARN"}
    null = {"name": "null", "backend": "sinks.backends.null.NullSink"}
    waits = {"COLLECTOR_ADMISSION_WAIT_S": "0.5"}
    with (
        Server(sinks=[{**null, "pipeline": on}], environ=waits, with_key=True) as ours,
        Server(sinks=[{**null, "pipeline": off}], with_key=True) as bare,
    ):
        ours.key = _limited_key(ours)
        for server in (ours, bare):
            _rate(server, plan, plan.records // 5)
        for repetition in range(plan.repetitions):
            plan.say(f"overload: cost {repetition + 1} of {plan.repetitions}")
            seconds = {ours: 0.0, bare: 0.0}
            before = {server: server.cpu_seconds() for server in seconds}
            for turn in range(COST_TURNS):
                # Who is first changes: what warms the machine up serves both.
                for server in (ours, bare) if turn % 2 == 0 else (bare, ours):
                    seconds[server] += plan.records / _rate(server, plan, plan.records)
            records = COST_TURNS * plan.records
            rate.add(*(records / seconds[server] for server in (ours, bare)))
            # Summed up: the kernel counts it in hundredths of a second.
            per_request = 1e6 * plan.batch / records
            spent.add(*((s.cpu_seconds() - before[s]) * per_request for s in (ours, bare)))
    return [rate, spent]


def _limited_key(server: Server) -> str:
    """A key whose rate is counted, and never used up."""
    said = server.run("manage.py", "apikey", "create", "limited", "--rate", "1000000000", "--json")
    return str(json.loads(said.splitlines()[-1])["token"])


def _rate(server: Server, plan: Plan, records: int) -> float:
    result = run_load(
        url=server.url,
        records=max(records // plan.batch, 1) * plan.batch,
        clients=plan.clients,
        batch=plan.batch,
        api_key=server.key,
    )
    return float(result["records_per_second"])


def _load(server: Server, times: float, seconds: float) -> dict[str, Any]:
    rate = SINK_RECORDS_PER_S * times
    return {
        "url": server.url,
        "records": int(rate * seconds) // BATCH * BATCH,
        "batch": BATCH,
        "clients": 32,
        "rate": rate,
        "duration_s": seconds + 5,
    }


def _stored(server: Server) -> int:
    return sum(one["stored"] for one in server.stats()["pipelines"])


def _buckets(server: Server) -> dict[float, float]:
    """Accepted requests by the bound of their time (seconds), cumulative."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as response:
        text = response.read().decode()
    found = {float(bound): float(count) for bound, count in _BUCKET.findall(text)}
    if not found:
        raise ServerFailed("/metrics tells nothing of ingest_seconds")
    return found


def _p99(before: dict[float, float], after: dict[float, float]) -> float:
    """The 99th percentile of what came in between (seconds), even within its bucket."""
    counts = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    wanted = 0.99 * counts[float("inf")]
    low = below = 0.0
    for bound, count in counts.items():
        if count >= wanted:
            return low + (bound - low) * (wanted - below) / max(count - below, 1.0)
        low, below = bound, count
    return low
