"""The sinks side by side: the engine and each of them in one process, without HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.comparison import Comparison, Panel
from benchmarks.figure import Figure
from benchmarks.plan import Plan
from benchmarks.postgres import cluster
from benchmarks.scenarios.sizes import stored
from benchmarks.server import Server

SIZE = 5_000
_BASE = "database, PostgreSQL"


@dataclass(frozen=True, kw_only=True)
class _Sink:
    name: str
    backend: str
    options: dict[str, Any] = field(default_factory=dict)
    workers: int = 1
    postgresql: bool = False


SINKS = (
    _Sink(name="null", backend="sinks.backends.null.NullSink"),
    _Sink(name="memory", backend="sinks.backends.memory.MemorySink"),
    _Sink(name="file", backend="sinks.backends.file.FileSink"),
    _Sink(name="database, SQLite", backend="sinks.backends.database.DatabaseSink"),
    _Sink(name=_BASE, backend="sinks.backends.database.DatabaseSink", postgresql=True),
    _Sink(
        name="database, PostgreSQL, 2 workers",
        backend="sinks.backends.database.DatabaseSink",
        workers=2,
        postgresql=True,
    ),
)


def measure(plan: Plan) -> list[Figure]:
    records = min(plan.records, 200_000)
    found: dict[str, list[dict[str, Any]]] = {sink.name: [] for sink in SINKS}
    with _installations() as installations:
        for repetition in range(plan.repetitions):
            plan.say(f"sinks: repetition {repetition + 1} of {plan.repetitions}")
            for sink in SINKS:
                found[sink.name] += stored(
                    installations[sink.postgresql],
                    sink.backend,
                    sizes=(SIZE,),
                    records=records,
                    options=sink.options,
                    workers=sink.workers,
                )
    rate = Panel(title="Stored", unit="records/s", log=True)
    cpu = Panel(title="Processor time here", unit="µs a record", less_is_better=True)
    for name, results in found.items():
        rate.add(name, [each["rate"] for each in results])
        cpu.add(name, [each["cpu_us_a_record"] for each in results])
    plan.show(
        Comparison(
            name="sinks",
            title="The sinks, each by itself",
            setting=f"{records:,} records of about 190 bytes in batches of {SIZE:,} through the "
            "engine and one sink in one process, without HTTP; one worker where nothing else is "
            f"said. Medians of {plan.repetitions} repetitions.",
            panels=[rate, cpu],
        )
    )
    figures = []
    for name, results in found.items():
        if name == _BASE:
            continue
        figure = Figure(name=f"sink: {name}", unit="records/s", goal=0.0, baseline_name=_BASE)
        for each, base in zip(results, found[_BASE], strict=True):
            figure.add(each["rate"], base["rate"])
        figures.append(figure)
    return figures


@contextmanager
def _installations() -> Iterator[dict[bool, Server]]:
    """One on SQLite and one on PostgreSQL, told by whether it is the latter."""
    environ = {"COLLECTOR_SEARCH_INDEX": "closed"}
    with cluster() as url:
        made = {False: Server(environ=environ), True: Server(database_url=url, environ=environ)}
        try:
            for installation in made.values():
                installation.prepare()
            yield made
        finally:
            for installation in made.values():
                installation.remove()
