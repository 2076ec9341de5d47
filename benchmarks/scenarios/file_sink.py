"""HTTP to the file sink, against what the same machine stores in PostgreSQL in the same run."""

from __future__ import annotations

from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.load import run_load
from benchmarks.plan import Plan
from benchmarks.postgres import cluster
from benchmarks.server import Server, ServerFailed


def measure(plan: Plan) -> list[Figure]:
    figure = Figure(
        name="HTTP -> file sink, stored",
        unit="records/s",
        goal=2.0,
        or_value=400_000.0,
        baseline_name="HTTP -> PostgreSQL, stored",
    )
    plan.say("file: first into PostgreSQL, to compare")
    # Without the search index, which would make the database slower and this figure better.
    environ = {"COLLECTOR_SEARCH_INDEX": "closed"}
    with cluster() as url, Server(database_url=url, environ=environ) as stored_in_database:
        _store(stored_in_database, plan, plan.records // 5)
        databases = [
            _store(stored_in_database, plan, plan.records) for _ in range(plan.repetitions)
        ]
    with Server(sinks=[{"name": "files", "backend": "sinks.backends.file.FileSink"}]) as server:
        directory = server.directory / "records"
        _store(server, plan, plan.records // 5)
        for repetition in range(plan.repetitions):
            plan.say(f"file: repetition {repetition + 1} of {plan.repetitions}")
            before = _lines(directory)
            rate = _store(server, plan, plan.records)
            written = _lines(directory) - before
            if written != plan.records:
                raise ServerFailed(f"{plan.records} accepted, {written} lines written")
            figure.add(rate, databases[repetition])
    return [figure]


def _store(server: Server, plan: Plan, records: int) -> float:
    before = sum(pipeline["stored"] for pipeline in server.stats()["pipelines"])
    result = run_load(
        url=server.url, records=records, clients=plan.clients, batch=plan.batch, api_key=server.key
    )
    if result["records_accepted"] != records:
        raise ServerFailed(f"of {records} records not all were accepted: {result}")
    ended = server.wait_until_stored(before + records)
    return float(records / (ended - result["started"]))


def _lines(directory: Path) -> int:
    count = 0
    for path in directory.glob("**/*"):
        if path.is_file():
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    count += block.count(b"\n")
    return count
