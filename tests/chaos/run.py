"""A run: rounds over one database, each fault in its turn, in an order that the seed decides."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.cluster import Cluster
from tests.chaos.faults import FAULTS, Unavailable
from tests.chaos.regressions import REGRESSIONS
from tests.chaos.report import Report
from tests.chaos.round import play
from tests.chaos.template import Template

ENOUGH_FOR_THE_LONG_FORM = 25


def faults_for(database: str, only: Sequence[str]) -> list[str]:
    names = list(only) or list(FAULTS)
    return [name for name in names if database in FAULTS[name].databases]


@contextmanager
def ground(database: str) -> Iterator[tuple[Path, Template, Cluster | None]]:
    """The directory, the prepared installation and the PostgreSQL that rounds share."""
    directory = Path(tempfile.mkdtemp(prefix="collector-chaos-"))
    cluster = Cluster() if database == "postgresql" else None
    try:
        if cluster is not None:
            cluster.start()
        yield directory, Template(directory=directory, cluster=cluster), cluster
    finally:
        if cluster is not None:
            cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


def plan(*, rounds: int, seed: int, database: str, only: Sequence[str]) -> list[tuple[str, int]]:
    """The fault and the seed of each round; a long run begins with what once failed."""
    order = faults_for(database, only)
    random.Random(seed).shuffle(order)
    known = [
        (one.fault, one.seed)
        for one in REGRESSIONS
        if one.database == database and one.fault in order and rounds >= ENOUGH_FOR_THE_LONG_FORM
    ]
    return known + [(order[n % len(order)], seed + n) for n in range(rounds - len(known))]


def run(*, rounds: int, seed: int, database: str, only: Sequence[str], report: Report) -> None:
    long_is_due = rounds >= ENOUGH_FOR_THE_LONG_FORM
    with ground(database) as (directory, template, cluster):
        for fault, its_seed in plan(rounds=rounds, seed=seed, database=database, only=only):
            long = long_is_due and fault == "cut"
            try:
                outcome = play(
                    seed=its_seed,
                    fault=fault,
                    template=template,
                    cluster=cluster,
                    directory=directory,
                    long=long,
                )
            except Unavailable as error:
                report.unavailable(fault, str(error))
                continue
            long_is_due = long_is_due and not long
            report.add(outcome)
