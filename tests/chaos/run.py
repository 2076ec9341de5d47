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
from tests.chaos.report import Report
from tests.chaos.round import play
from tests.chaos.template import Template

_ENOUGH_FOR_THE_LONG_FORM = 25


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


def run(*, rounds: int, seed: int, database: str, only: Sequence[str], report: Report) -> None:
    order = faults_for(database, only)
    random.Random(seed).shuffle(order)
    long_is_due = rounds >= _ENOUGH_FOR_THE_LONG_FORM
    with ground(database) as (directory, template, cluster):
        for number in range(rounds):
            fault = order[number % len(order)]
            long = long_is_due and fault == "cut"
            try:
                outcome = play(
                    seed=seed + number,
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
