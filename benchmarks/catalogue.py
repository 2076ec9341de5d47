"""Owns: what can be measured: the names of the command line, their modules, a line on each.

`drawn` are those that compare several ways, which `--plot` draws.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    module: str
    about: str
    drawn: bool = False


CATALOGUE = {
    "http": Entry("http_postgres", "HTTP to stored in PostgreSQL, against one COPY of the rows"),
    "sqlite": Entry("http_sqlite", "HTTP to stored in SQLite, against one executemany of the rows"),
    "file": Entry("file_sink", "HTTP to the file sink, against the same into PostgreSQL"),
    "single": Entry("single", "one record a request, against a view that does nothing"),
    "memory": Entry("memory", "memory at ten times the load that the sink takes"),
    "wal": Entry("wal", "answers after the log is synced (ack=wal), against ack=memory"),
    "poison": Entry("poison", "one bad record in a thousand, against none"),
    "replay": Entry("replay", "a full log delivered after a kill, against the same load live"),
    "engine": Entry("engine", "the engine alone with everything on: requests, single records"),
    "batcher": Entry("batcher", "six ways of batching, into a store 50 ms away", drawn=True),
    "buffer": Entry("buffer", "three queues between threads: 1, 4, 16 producers", drawn=True),
    "sizes": Entry("sizes", "batches of 100 to 10,000 records into PostgreSQL", drawn=True),
    "sinks": Entry("sinks", "the sinks side by side, without HTTP", drawn=True),
    "serialization": Entry(
        "serialization", "JSON, MessagePack, protobuf: reading them, and bytes", drawn=True
    ),
    "overload": Entry("overload", "twice the load that the sink takes: goodput, delay, its cost"),
    "neighbours": Entry("neighbours", "what a quiet tenant notices of one that floods"),
    "workers": Entry("workers", "four workers against one, and as many as the autoscaler finds"),
    "adaptive": Entry("adaptive", "batches and writes that find their size: on, off", drawn=True),
    "probing": Entry("probing", "probes a second of the checker, against a bare client"),
    "jobs": Entry("jobs", "jobs a second, submitting, a long history, how soon a job begins"),
}  # fmt: skip
SCENARIOS = {name: f"benchmarks.scenarios.{entry.module}" for name, entry in CATALOGUE.items()}


def told() -> str:
    """A line a name, for the end of a help text."""
    width = max(map(len, CATALOGUE))
    lines = [
        f"  {name:{width}} {'*' if entry.drawn else ' '} {entry.about}"
        for name, entry in CATALOGUE.items()
    ]
    return "\n".join(["what NAME measures (* is drawn by --plot):", *lines])
