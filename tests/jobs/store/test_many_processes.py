"""Many processes claim at once: every job is run, none by two holders of the same claim."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from jobs.states import SUCCEEDED
from jobs.store.database import DatabaseStore
from jobs.store.models import Job, JobEvent
from jobs.store.protocol import Draft
from jobs.types.models import JobType
from tests.conftest import ON_POSTGRESQL

HAND = str(Path(__file__).with_name("hand.py"))
PROCESSES, JOBS = (8, 600) if ON_POSTGRESQL else (3, 150)


def _environ() -> dict[str, str]:
    """This test's database, as a process of its own finds it."""
    environ = dict(os.environ)
    name = str(connection.settings_dict["NAME"])
    if ON_POSTGRESQL:
        base, _, _ = environ["COLLECTOR_DATABASE_URL"].partition("?")
        query = environ["COLLECTOR_DATABASE_URL"][len(base) :]
        environ["COLLECTOR_DATABASE_URL"] = base.rpartition("/")[0] + "/" + name + query
    else:
        # The settings put "control.sqlite3" behind the stem that the URL names.
        stem = Path(name).with_name("many.sqlite3")
        control = stem.with_name("many-control.sqlite3")
        control.unlink(missing_ok=True)
        control.symlink_to(name)
        environ["COLLECTOR_DATABASE_URL"] = f"sqlite:///{stem}"
    environ["PYTHONPATH"] = str(settings.BASE_DIR)
    return environ


@pytest.mark.server
@pytest.mark.timeout(300)
@pytest.mark.django_db(transaction=True)
def test_every_job_is_run_and_no_claim_has_two_holders() -> None:
    store = DatabaseStore()
    types = [JobType.objects.create(name=f"t{n}").pk for n in range(3)]
    drafts = [Draft(type_id=types[n % 3], payload={"n": n}, priority=n % 10) for n in range(JOBS)]
    store.submit(drafts)
    environ = _environ()
    hands = [
        subprocess.Popen(
            [sys.executable, HAND, f"h{n}", ",".join(map(str, types)), "chaos"],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(PROCESSES)
    ]
    try:
        for hand in hands:
            assert hand.stdout is not None
            assert hand.stdout.readline() == "ready\n"
        said = [hand.communicate("go\n", timeout=200)[0].split("\n") for hand in _started(hands)]
    finally:
        for hand in hands:
            hand.kill()
            hand.wait()
    assert [hand.returncode for hand in hands] == [0] * PROCESSES
    lines = [line for one in said for line in one if line]
    claimed = Counter(line for line in lines if line.startswith("claimed "))
    ended = Counter(line.split()[1] for line in lines if line.startswith("ended "))
    assert not [line for line in lines if line.startswith("LATE ")]
    assert [line for line in lines if line.startswith("refused ")], "nobody was late"
    assert set(claimed.values()) == {1}, "one claim was given to two"
    assert ended == Counter({str(draft.id): 1 for draft in drafts})
    assert set(Job.objects.values_list("state", flat=True)) == {SUCCEEDED}
    # Everything that was given out is in the story, once.
    story = JobEvent.objects.filter(state="running").values_list("job_id", "claim")
    assert Counter(f"claimed {job} {claim}" for job, claim in story) == claimed
    counts = {one: {SUCCEEDED: JOBS // 3} for one in types}
    assert store.counts() == counts
    while store.fold():
        pass
    assert store.counts() == counts
    assert store.runners() == {}


def _started(hands: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    """All told to begin before the first is waited for."""
    for hand in hands:
        assert hand.stdin is not None
        hand.stdin.write("\n")
        hand.stdin.flush()
    return hands
