"""What probing costs the checker, and how punctual it is: the real process, many loopback hosts.

Rates are probes per CPU-second of the checker, in all its threads, with every result stored; beside
them a bare asyncio loop that only connects, asks and reads to the end.  Lags and memory stand
against their bounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.checker import Crowd, Installation, Run
from benchmarks.figure import Figure
from benchmarks.listeners import listeners, self_signed
from benchmarks.plan import Plan
from benchmarks.postgres import cluster
from benchmarks.probe_http import bare, measure_quietly

HOSTS = [f"127.0.0.{last}" for last in range(1, 9)]
MS = 1000.0


def measure(plan: Plan) -> list[Figure]:
    return [
        _rate(plan, "PostgreSQL", goal=3_000),
        _rate(plan, "SQLite", goal=1_500),
        _rate(plan, "PostgreSQL", goal=500, tls=True),
        _in_flight(plan),
        *_ten_thousand(plan),
        _hanging(plan),
    ]


def _rate(plan: Plan, database: str, *, goal: float, tls: bool = False) -> Figure:
    targets = 500 if tls else 2_500
    figure = Figure(
        name=f"HTTP{'S' if tls else ''} probes, history in {database}",
        unit="probes/CPU-s",
        goal=0.5,
        or_value=goal,
        baseline_name="bare asyncio loop",
    )
    with contextlib.ExitStack() as stack:
        files = self_signed(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        context = ssl._create_unverified_context() if tls else None
        port = stack.enter_context(listeners(tls=files if tls else None))
        installation = stack.enter_context(_installation(database))
        installation.targets(
            [
                Crowd(
                    port=port,
                    count=targets,
                    interval_s=1.0,
                    scheme="https" if tls else "http",
                    options={"verify_tls": False} if tls else None,
                )
            ]
        )
        checker = stack.enter_context(installation.checker())
        checker.wait_for(targets)
        time.sleep(5)
        for repetition in range(plan.repetitions):
            plan.say(f"{figure.name}: {repetition + 1} of {plan.repetitions}")
            run = checker.measure(10 if plan.quick else 20)
            urls = [f"{'https' if tls else 'http'}://{host}:{port}/" for host in HOSTS]
            floor = asyncio.run(measure_quietly(bare(port, context), urls, 500 if tls else 3_000))
            figure.add(run.per_cpu_second, floor)
            figure.notes = _notes(run)
    return figure


def _in_flight(plan: Plan) -> Figure:
    figure = Figure(
        name="probes in flight at once", unit="probes", goal=1.0, baseline_name="asked for"
    )
    plan.say(figure.name)
    with listeners("slow") as port, _installation("SQLite") as installation:
        # Each takes three seconds: at this pace 3,000 and some are under way.
        installation.targets([Crowd(port=port, count=9_000, interval_s=8.0)])
        with installation.checker() as checker:
            checker.wait_for(9_000)
            time.sleep(10)
            run = checker.measure(10)
            figure.add(run.report["in_flight_most"], 3_000)
            figure.notes = _notes(run)
    return figure


def _ten_thousand(plan: Plan) -> list[Figure]:
    lag = Figure(
        name="10,000 targets at 10 s, p99 lag", unit="ms", goal=1.0, at_most=True,
        baseline_name="bound",
    )  # fmt: skip
    memory = Figure(
        name="10,000 targets at 10 s, memory", unit="MiB", goal=1.0, at_most=True,
        baseline_name="bound",
    )  # fmt: skip
    plan.say(lag.name)
    with listeners() as port, _installation("PostgreSQL") as installation:
        installation.targets([Crowd(port=port, count=10_000, interval_s=10.0)])
        with installation.checker() as checker:
            checker.wait_for(10_000)
            time.sleep(15)
            run = checker.measure(20 if plan.quick else 60)
            lag.add(run.report["lag_p99_s"] * MS, 250)
            memory.add(run.rss_bytes / 2**20, 400)
            lag.notes = memory.notes = _notes(run)
    return [lag, memory]


def _hanging(plan: Plan) -> Figure:
    """The others' p99 with a thousand targets that never answer, less their p99 without."""
    figure = Figure(
        name="p99 lag added by 1,000 hanging targets", unit="ms", goal=1.0, at_most=True,
        baseline_name="bound",
    )  # fmt: skip
    lags = []
    for hanging in (0, 1_000):
        plan.say(f"{figure.name}: with {hanging}")
        with listeners() as port, listeners("hang") as silent:
            crowds = [Crowd(port=port, count=2_000, interval_s=5.0)]
            if hanging:
                crowds.append(Crowd(port=silent, count=hanging, interval_s=15.0))
            with _installation("SQLite") as installation:
                installation.targets(crowds)
                with installation.checker() as checker:
                    checker.wait_for(2_000 + hanging)
                    time.sleep(25)
                    run = checker.measure(20)
                    lags.append(run.report["lag_p99_s"] * MS)
    figure.add(max(lags[1] - lags[0], 0.0), 50)
    figure.notes = {"p99_ms_without": round(lags[0], 1), "p99_ms_with": round(lags[1], 1)}
    return figure


@contextlib.contextmanager
def _installation(database: str) -> Iterator[Installation]:
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(cluster()) if database == "PostgreSQL" else ""
        yield stack.enter_context(Installation(database_url=url))


def _notes(run: Run) -> dict[str, float]:
    return {
        "probes_a_second": round(run.probes / run.seconds),
        "cpu_share": round(run.cpu_s / run.seconds, 2),
        "lag_p50_ms": round(run.report["lag_p50_s"] * MS, 1),
        "lag_p99_ms": round(run.report["lag_p99_s"] * MS, 1),
        "memory_mib": round(run.rss_bytes / 2**20),
        "in_flight_most": run.report["in_flight_most"],
        "stalls": run.report["stalls"],
        "flips": run.report["flips"],
    }
