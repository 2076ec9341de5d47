"""How large a batch should be: 100, 500, 2,000 and 10,000 records into PostgreSQL.

The engine and the `database` sink in one process with one worker, without HTTP: the table with its
partitions and indexes, COPY, and the proof of each batch in the same transaction.
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.comparison import Comparison, Panel
from benchmarks.figure import Figure
from benchmarks.plan import Plan
from benchmarks.postgres import RecordsTable, cluster
from benchmarks.server import Server

SIZES = (100, 500, 2_000, 10_000)
_BASE = SIZES[0]
_DATABASE = "sinks.backends.database.DatabaseSink"


def measure(plan: Plan) -> list[Figure]:
    records = min(plan.records, 200_000)
    found: dict[int, list[dict[str, Any]]] = {size: [] for size in SIZES}
    environ = {"COLLECTOR_SEARCH_INDEX": "closed"}
    with cluster() as url:
        installation = Server(database_url=url, environ=environ)
        try:
            installation.prepare()
            table = RecordsTable(url)
            try:
                for repetition in range(plan.repetitions):
                    plan.say(f"sizes: repetition {repetition + 1} of {plan.repetitions}")
                    # One way and then the other: the table grows meanwhile.
                    sizes = SIZES if repetition % 2 == 0 else SIZES[::-1]
                    for each in stored(installation, _DATABASE, sizes=sizes, records=records):
                        found[each["size"]].append(each)
                    table.empty()
            finally:
                table.close()
        finally:
            installation.remove()
    plan.show(_comparison(plan, records, found))
    figures = []
    for size in SIZES[1:]:
        figure = Figure(
            name=f"batches of {size:,} -> PostgreSQL",
            unit="records/s",
            goal=0.0,
            baseline_name=f"batches of {_BASE}",
        )
        for each, base in zip(found[size], found[_BASE], strict=True):
            figure.add(each["rate"], base["rate"])
        figure.notes = {
            name: [round(each[name], 2) for each in found[size]]
            for name in ("write_ms_p50", "write_ms_p95", "cpu_us_a_record")
        }
        figures.append(figure)
    return figures


def stored(
    installation: Server,
    backend: str,
    *,
    sizes: tuple[int, ...],
    records: int,
    options: dict[str, Any] | None = None,
    workers: int = 1,
) -> list[dict[str, Any]]:
    """What `benchmarks.direct` finds in this installation."""
    wanted = {
        "backend": backend,
        "options": options or {},
        "sizes": sizes,
        "records": records,
        "workers": workers,
    }
    said = installation.run("-m", "benchmarks.direct", json.dumps(wanted))
    results: list[dict[str, Any]] = json.loads(said.splitlines()[-1])["results"]
    return results


def _comparison(plan: Plan, records: int, found: dict[int, list[dict[str, Any]]]) -> Comparison:
    rate = Panel(title="Stored by one worker", unit="records/s")
    write = Panel(title="One write, p95", unit="ms", less_is_better=True, log=True)
    for size in SIZES:
        label = f"batches of {size:,}"
        rate.add(label, [each["rate"] for each in found[size]])
        write.add(label, [each["write_ms_p95"] for each in found[size]])
    return Comparison(
        name="sizes",
        title="Batch sizes against PostgreSQL",
        setting=f"{records:,} records of about 190 bytes through the engine and the database sink "
        "in one process: COPY into day partitions with their indexes, the proof of the batch in "
        f"the same transaction. Medians of {plan.repetitions} repetitions.",
        panels=[rate, write],
    )
