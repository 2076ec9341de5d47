"""Owns: what is measured inside a process of an installation: running jobs, and the admin's pages.

`python -m benchmarks.jobs_child` is started by `benchmarks.jobs_rooms` with the installation's
environment.  It reads one JSON command a line, `[name, {arguments}]`, and answers each with one
line of JSON; it ends with its input.  What is measured is the process's own runner, made as
`manage.py run_jobs` makes it.  All on the main thread, but for the runner's threads.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from typing import Any

TYPE = "bench-empty"
BARE_TYPE = "bench-bare"
PAGES = {"board": "/admin/jobs/", "list": "/admin/jobs/job/"}
DRAFTS = 500
PATIENCE_S = 120.0


def main() -> None:
    import django

    django.setup()
    from django.conf import settings

    settings.ALLOWED_HOSTS = ["*"]
    for line in sys.stdin:
        name, arguments = json.loads(line)
        print(json.dumps(COMMANDS[name](**arguments)), flush=True)


def _submit(type_name: str, jobs: int) -> list[Any]:
    """Queue so many jobs of a type without steps; their ids."""
    from jobs.store.database import store
    from jobs.store.protocol import Draft
    from jobs.types import catalogue
    from jobs.types.models import JobType

    type_id = JobType.objects.get_or_create(name=type_name)[0].pk
    catalogue.refresh()
    drafts = [Draft(type_id=type_id, payload={"user_id": n}) for n in range(jobs)]
    for first in range(0, jobs, DRAFTS):
        store().submit(drafts[first : first + DRAFTS])
    return [draft.id for draft in drafts]


def run(jobs: int, workers: int) -> dict[str, float]:
    """Claim, run and complete `jobs` that wait already, from the runner's start on."""
    from django.conf import settings

    from jobs.running.service import make_runner

    _submit(TYPE, jobs)
    collector = settings.COLLECTOR
    own = dataclasses.replace(collector.jobs, min_workers=workers, max_workers=workers)
    settings.COLLECTOR = dataclasses.replace(collector, jobs=own)
    runner = make_runner()
    used, began = time.process_time(), time.perf_counter()
    try:
        runner.start()
        while runner.figures.succeeded < jobs:
            if time.perf_counter() - began > PATIENCE_S:
                raise RuntimeError(f"of {jobs} jobs not all ended: {runner.report()}")
            time.sleep(0.01)
        took, used = time.perf_counter() - began, time.process_time() - used
    finally:
        settings.COLLECTOR = collector
        runner.stop(finish_s=1)
    groups = runner.committer.groups
    return {
        "rate": jobs / took,
        "cpu_us_a_job": used / jobs * 1e6,
        "jobs_a_commit": runner.committer.written / max(groups, 1),
    }


def bare(jobs: int, group: int) -> float:
    """Jobs a second of a loop that ends each with one UPDATE, and commits after `group` of them."""
    from django.db import connection

    ids = _submit(BARE_TYPE, jobs)
    connection.ensure_connection()
    driver: Any = connection.connection
    if connection.vendor == "postgresql":
        statement = "UPDATE jobs_job SET state = 'succeeded', finished_at = now() WHERE id = %s"
        begin, keys = "BEGIN", ids
    else:
        statement = "UPDATE jobs_job SET state = 'succeeded', finished_at = started_at WHERE id = ?"
        begin, keys = "BEGIN IMMEDIATE", [one.hex for one in ids]
    cursor = driver.cursor()
    began = time.perf_counter()
    for first in range(0, jobs, group):
        cursor.execute(begin)
        for key in keys[first : first + group]:
            cursor.execute(statement, (key,))
        cursor.execute("COMMIT")
    took = time.perf_counter() - began
    _forget(BARE_TYPE)
    return jobs / took


def _forget(type_name: str) -> None:
    """No trace of what was not run by the product, and whose tallies are therefore wrong."""
    from django.db import connection

    from jobs.store.models import Job, JobCount, JobTally
    from jobs.types.models import JobType

    type_id = JobType.objects.get(name=type_name).pk
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM jobs_jobevent WHERE job_id IN"
            " (SELECT id FROM jobs_job WHERE type_id = %s)",
            [type_id],
        )
        cursor.execute("DELETE FROM jobs_job WHERE type_id = %s", [type_id])
    for model in (JobCount, JobTally):
        model.objects.filter(type_id=type_id).delete()
    assert not Job.objects.filter(type_id=type_id).exists()


def fill(jobs: int) -> float:
    """Make so many finished jobs; the seconds that it took."""
    from benchmarks.jobs_history import fill as make

    began = time.perf_counter()
    make(jobs, TYPE)
    return time.perf_counter() - began


def fold() -> None:
    """Fold the tallies, as runners do every second."""
    from jobs.store.database import store

    while store().fold():
        pass


def page(page: str) -> float:
    """Milliseconds of one fetch of the admin's page."""
    client = _signed_in()
    began = time.perf_counter()
    response = client.get(PAGES[page])
    took = time.perf_counter() - began
    if response.status_code != 200:
        raise RuntimeError(f"{PAGES[page]} answered {response.status_code}")
    return took * 1000


@functools.cache
def _signed_in() -> Any:
    from django.contrib.auth import get_user_model
    from django.test import Client

    users: Any = get_user_model()
    client = Client()
    client.force_login(users.objects.create_superuser("bench", "", "x"))
    return client


COMMANDS: dict[str, Any] = {
    "run": run, "bare": bare, "fill": fill, "fold": fold, "page": page,
}  # fmt: skip


if __name__ == "__main__":
    main()
