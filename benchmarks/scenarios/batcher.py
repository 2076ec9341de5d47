"""Single records into a far store, 50 ms a write and 10 us a record: six ways, side by side.

Throughput with a producer that never pauses; latency with one that hands over fifteen records a
second, which even the naive way can bear.
"""

from __future__ import annotations

import logging
import time

from benchmarks.batchers import WAYS, Way
from benchmarks.comparison import Comparison, Panel
from benchmarks.figure import Figure
from benchmarks.plan import Plan
from benchmarks.tally import Store, percentile

WRITE_S = 0.05
RECORD_S = 0.00001
RATE = 15
_NAIVE_SHARE = 1_000  # the naive way gets so many times fewer records: it would take an hour


def measure(plan: Plan) -> list[Figure]:
    records = min(plan.records // 5, 60_000)
    paced = int(RATE * min(2.0 if plan.quick else 6.0, plan.records / 20_000))
    throughput = Panel(title="Throughput", unit="records/s", log=True)
    latency = Panel(
        title=f"Handed over to stored, p95 at {RATE}/s", unit="ms", less_is_better=True, log=True
    )
    comparison = Comparison(
        name="batcher",
        title="From single records to batches",
        setting=f"A store of {WRITE_S * 1000:g} ms a write and {RECORD_S * 1e6:g} µs a record. "
        f"Throughput: {records:,} single records from one thread, at most 50,000 held. "
        f"Latency: {paced:,} records at {RATE} a second. Medians of {plan.repetitions} "
        "repetitions.",
        panels=[throughput, latency],
    )
    # Each write that fails is a warning, and here one that is wanted.
    logging.getLogger("pipeline").setLevel(logging.ERROR)
    rates: dict[str, list[float]] = {way.name: [] for way in WAYS}
    waits: dict[str, list[float]] = {way.name: [] for way in WAYS}
    for repetition in range(plan.repetitions):
        plan.say(f"batchers: repetition {repetition + 1} of {plan.repetitions}")
        for way in WAYS:
            count = records if way.settings is not None else max(records // _NAIVE_SHARE, 10)
            rates[way.name].append(_throughput(way, count))
            waits[way.name].append(_latency(way, paced))
    figures = []
    naive = rates[WAYS[0].name]
    for way in WAYS:
        throughput.add(way.name, rates[way.name])
        latency.add(way.name, waits[way.name])
        if way.settings is None:
            continue
        figure = Figure(
            name=f"batcher: {way.name}", unit="records/s", goal=0.0, baseline_name="naive"
        )
        for value, base in zip(rates[way.name], naive, strict=True):
            figure.add(value, base)
        figure.notes = {"p95_ms": [round(wait, 1) for wait in waits[way.name]]}
        figures.append(figure)
    plan.show(comparison)
    return figures


def _throughput(way: Way, count: int) -> float:
    store = Store(write_s=WRITE_S, record_s=RECORD_S, fails=way.fails)
    batcher = way.open(store)
    started = time.perf_counter()
    for _ in range(count):
        batcher.submit()
    batcher.close()
    seconds = time.perf_counter() - started
    _check(store, count)
    return count / seconds


def _latency(way: Way, count: int) -> float:
    store = Store(write_s=WRITE_S, record_s=RECORD_S, fails=way.fails)
    batcher = way.open(store)
    started = time.perf_counter()
    for n in range(count):
        # By the clock and not by pauses: a late record is not made up for by fewer.
        time.sleep(max(started + n / RATE - time.perf_counter(), 0))
        batcher.submit()
    batcher.close()
    _check(store, count)
    return percentile(store.latencies_ms, 0.95)


def _check(store: Store, count: int) -> None:
    if store.stored != count:
        raise RuntimeError(f"{count} records handed over, {store.stored} stored")
