"""A few rounds of chaos in the suite; `make chaos` plays many. The seed is in every message."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from tests.chaos.report import Report
from tests.chaos.round import play
from tests.chaos.run import ground

DATABASE = os.environ.get("COLLECTOR_TEST_DB", "sqlite")
# Faults that need nothing of the machine, and between them a kill, a drain and a failing sink;
# what strikes at random is the moment.
FAULTS = ("kill_server", "sink_fails", "cut" if DATABASE == "postgresql" else "kill_worker")

pytestmark = [pytest.mark.server, pytest.mark.once, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def playground() -> Iterator:
    with ground(DATABASE) as ready:
        yield ready


@pytest.mark.parametrize("fault", [*FAULTS[:2], pytest.param(FAULTS[2], marks=pytest.mark.long)])
def test_nothing_acknowledged_is_lost_or_stored_twice(playground, fault: str) -> None:
    directory, template, cluster = playground
    seed = random.SystemRandom().randrange(10**6)
    print(f"chaos: {fault} on {DATABASE}, seed {seed}")
    outcome = play(seed=seed, fault=fault, template=template, cluster=cluster, directory=directory)
    said: list[str] = []
    Report(say=said.append).add(outcome)
    assert outcome.passed, "\n".join([*said, outcome.output[-6000:]])
