"""What jobs cost: running empty ones, submitting, a long history, and how soon one begins.

Every figure notes the load of the machine when each repetition began: on a busy one a rate that
misses its goal says little, and its ratio to the baseline of the same moment says more.
"""

from __future__ import annotations

import math
import os
from typing import Any

from benchmarks.figure import Figure
from benchmarks.jobs_rooms import DATABASES, Child, pair
from benchmarks.jobs_server import BARE, JobsServer, jobs_server
from benchmarks.plan import Plan

GOALS = {"PostgreSQL": 3_000.0, "SQLite": 1_000.0}
# Many workers, because each waits for its own write; and as many as a new installation has.
WORKERS, DEFAULT_WORKERS = 64, 16
SMALL = 1_000
CLIENTS = (1, 8)
START_MS = 100.0
# Of a page in each turn, here and there alternately; the quickest counts: other work only adds.
FETCHES = 6
PAGES = {"board": "/admin/jobs/", "list": "/admin/jobs/job/"}


def measure(plan: Plan) -> list[Figure]:
    figures = []
    for database in DATABASES:
        with pair(database) as (child, other):
            figures += _running(plan, database, child)
            figures += _history(plan, database, child, other)
        with jobs_server(database) as server:
            # First while nothing waits: nobody runs what is submitted afterwards.
            figures.append(_start(plan, database, server))
            figures += _submitting(plan, database, server)
    return figures


# --- claim, run, complete ----------------------------------------------------------------------


def _running(plan: Plan, database: str, child: Child) -> list[Figure]:
    jobs = 4_000 if plan.quick else 20_000
    goal = Figure(
        name=f"empty jobs run, {database}, {WORKERS} workers", unit="jobs/s", goal=1.0,
        baseline_name="goal",
    )  # fmt: skip
    single, default = (
        Figure(
            name=f"empty jobs run, {database}, {workers} workers", unit="jobs/s", goal=0.0,
            baseline_name="a loop of one UPDATE and commit a job",
        )
        for workers in (WORKERS, DEFAULT_WORKERS)
    )  # fmt: skip
    child.ask("run", jobs=500, workers=WORKERS)
    for repetition in range(plan.repetitions):
        plan.say(f"jobs, {database}, running: {repetition + 1} of {plan.repetitions}")
        for figure in (goal, single, default):
            _note_load(figure)
        many = child.ask("run", jobs=jobs, workers=WORKERS)
        bare = child.ask("bare", jobs=jobs // 5, group=1)
        few = child.ask("run", jobs=jobs // 2, workers=DEFAULT_WORKERS)
        grouped = child.ask("bare", jobs=jobs // 5, group=32)
        goal.add(many["rate"], GOALS[database])
        single.add(many["rate"], bare)
        default.add(few["rate"], bare)
        for figure, run in ((goal, many), (single, many), (default, few)):
            _note(figure, "processor_us_a_job", run["cpu_us_a_job"])
            _note(figure, "jobs_a_commit", run["jobs_a_commit"])
        _note(single, "updates_a_second_committed_by_32", grouped)
    return [goal, single, default]


# --- with a long history -----------------------------------------------------------------------


def _history(plan: Plan, database: str, small: Child, large: Child) -> list[Figure]:
    jobs = 100_000 if plan.quick else 1_000_000
    plan.say(f"jobs, {database}: {jobs:,} finished jobs")
    took = large.ask("fill", jobs=jobs)
    small.ask("fill", jobs=SMALL)
    claiming = Figure(
        name=f"empty jobs run, {database}, {jobs:,} finished", unit="jobs/s",
        goal=round(1 / 1.2, 2), baseline_name=f"with {SMALL:,} finished",
    )  # fmt: skip
    pages = {
        name: Figure(
            name=f"{path}, {database}, {jobs:,} finished", unit="ms", goal=1.2, at_most=True,
            baseline_name=f"with {SMALL:,} finished",
        )
        for name, path in PAGES.items()
    }  # fmt: skip
    claiming.notes["fill_s"] = round(took, 1)
    rooms = (small, large)
    for room in rooms:
        room.ask("run", jobs=500, workers=WORKERS)
    for turn in range(2 * plan.repetitions):
        plan.say(f"jobs, {database}, history: {turn + 1} of {2 * plan.repetitions}")
        _note_load(claiming)
        order = rooms if turn % 2 == 0 else rooms[::-1]
        rates = {
            room: room.ask("run", jobs=2_000 if plan.quick else 10_000, workers=WORKERS)["rate"]
            for room in order
        }
        claiming.add(rates[large], rates[small])
    for room in rooms:
        room.ask("fold")
        for name in pages:
            for _ in range(2):
                room.ask("page", page=name)
    for turn in range(4 * plan.repetitions):
        order = rooms if turn % 2 == 0 else rooms[::-1]
        for name, figure in pages.items():
            _note_load(figure)
            took_ms = dict.fromkeys(rooms, math.inf)
            for _ in range(FETCHES):
                for room in order:
                    took_ms[room] = min(took_ms[room], room.ask("page", page=name))
            figure.add(took_ms[large], took_ms[small])
    return [claiming, *pages.values()]


# --- through the server ------------------------------------------------------------------------


def _start(plan: Plan, database: str, server: JobsServer) -> Figure:
    samples = 50 if plan.quick else 200
    figure = Figure(
        name=f"a job on an idle system begins, p95 of {samples}, {database}", unit="ms", goal=1.0,
        at_most=True, baseline_name="bound",
    )  # fmt: skip
    plan.say(figure.name)
    _note_load(figure)
    found = sorted(server.start_latencies(samples))
    figure.add(_percentile(found, 0.95), START_MS)
    for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99), ("worst_ms", 1.0)):
        figure.notes[name] = round(_percentile(found, share), 1)
    return figure


def _submitting(plan: Plan, database: str, server: JobsServer) -> list[Figure]:
    figures = []
    for clients in CLIENTS:
        requests = 300 if plan.quick else 4_000
        figure = Figure(
            name=f"POST /jobs, {database}, {clients} client{'s' * (clients > 1)}",
            unit="requests/s", goal=0.7, baseline_name="bare DRF view that inserts one row",
        )  # fmt: skip
        for path in ("/jobs", BARE):
            server.submit(path, requests=requests // 4, clients=clients)
        for repetition in range(2 * plan.repetitions):
            plan.say(f"{figure.name}: {repetition + 1} of {2 * plan.repetitions}")
            _note_load(figure)
            order = ("/jobs", BARE) if repetition % 2 == 0 else (BARE, "/jobs")
            rates = {p: server.submit(p, requests=requests, clients=clients) for p in order}
            figure.add(rates["/jobs"], rates[BARE])
        figures.append(figure)
    server.check()
    return figures


# --- notes -------------------------------------------------------------------------------------


def _percentile(found: list[float], share: float) -> float:
    """The smallest value that so many are no greater than; `found` is in order."""
    return found[max(math.ceil(share * len(found)) - 1, 0)]


def _note_load(figure: Figure) -> None:
    _note(figure, "load", os.getloadavg()[0])


def _note(figure: Figure, name: str, value: Any) -> None:
    figure.notes.setdefault(name, []).append(round(value, 1))
