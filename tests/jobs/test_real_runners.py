"""Real runners beside a real server and real services: killed, frozen, stopped, cut off."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from jobs.toy.behaviour import Behaviour
from jobs.toy.server import Toy
from tests.conftest import ServerFactory
from tests.healthmon.checker.watched import rows
from tests.jobs.story import RUNNER, Story
from tests.servers.collector import ROOT, CollectorServer
from tests.servers.proxy import postgres_proxy

QUICK = {"COLLECTOR_JOBS_LEASE_S": "2", "COLLECTOR_JOBS_MAX_WORKERS": "8"}
TYPE = """
import json
from jobs.models import DownstreamService, JobType, TypeStep
type = JobType.objects.create(name="two", max_attempts=4, backoff_base_s=0.1)
for stage, (name, url) in enumerate(json.loads({services!r}), 1):
    service = DownstreamService.objects.create(name=name, base_url=url, timeout_s=60)
    TypeStep.objects.create(type=type, stage=stage, name=name, downstream=service, path="/work")
"""
Toys = Callable[..., Toy]


@pytest.fixture
def toys() -> Iterator[Toys]:
    made: list[Toy] = []

    def start(latency_s: float = 0.0) -> Toy:
        made.append(Toy(behaviour=Behaviour(latency_s=(latency_s, latency_s))))
        made[-1].start()
        return made[-1]

    yield start
    for toy in made:
        toy.stop()


def runner(start: ServerFactory, server: CollectorServer, **extra: str) -> CollectorServer:
    url = {k: v for k, v in server.environ.items() if k == "COLLECTOR_DATABASE_URL"}
    return start(
        environ=QUICK | url | extra,
        data_dir=server.data_dir,
        command=RUNNER,
        started=False,
        prepare=False,
    )


def freeze(process: CollectorServer) -> None:
    """At a moment when it does not write: who is frozen with SQLite's lock locks everybody out."""
    while True:
        process.send(signal.SIGSTOP)
        if process.environ.get("COLLECTOR_DATABASE_URL"):
            return
        file = process.data_dir / "control.sqlite3"
        with closing(sqlite3.connect(file, timeout=0.2, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                process.send(signal.SIGCONT)
                continue
            connection.execute("ROLLBACK")
            return


def two_steps(server: CollectorServer, first: str, second: str) -> None:
    services = json.dumps([("first", first), ("second", second)])
    subprocess.run(
        [sys.executable, "manage.py", "shell", "-c", TYPE.format(services=services)],
        cwd=ROOT, env=server.environ, check=True, capture_output=True, timeout=120,
    )  # fmt: skip


def submit(server: CollectorServer, count: int = 1) -> list[str]:
    client = server.client()
    ids: list[str] = []

    def one() -> bool:
        answer = client.post("/jobs", json={"type": "two", "payload": {"n": len(ids)}})
        # The server learns of a new type within two seconds.
        if answer.status_code == 422:
            return False
        assert answer.status_code == 202, answer.text
        ids.append(answer.json()["id"])
        return len(ids) == count

    server.wait_until(one)
    return ids


def job(server: CollectorServer, job_id: str) -> dict[str, Any]:
    document: dict[str, Any] = server.client().get(f"/jobs/{job_id}").json()
    return document


def states(server: CollectorServer) -> dict[str, int]:
    return dict(rows(server, "SELECT state, count(*) FROM jobs_job GROUP BY state"))


def steps(server: CollectorServer) -> dict[str, str]:
    return dict(rows(server, "SELECT name, state FROM jobs_jobstep"))


def calls(toy: Toy) -> Counter[str]:
    return Counter(str(call["token"]) for call in toy.journal.lines(limit=1_000_000))


def test_in_short_what_a_new_user_tries(collector_server: ServerFactory) -> None:
    server = collector_server(environ=QUICK)
    report = Story(
        server=server,
        runners=[runner(collector_server, server) for _ in range(2)],
        jobs=60,
        fail_rate=0.2,
        down_for_s=1.0,
        open_s=1.0,
        backoff_s=0.2,
        patience_s=100.0,
    ).run()
    assert sum(report.states.values()) == 60, report
    assert report.states["succeeded"] >= 57, report
    assert report.completed_twice == 0, report
    assert report.repeated <= report.in_flight, report
    assert "open" in report.breakers, report


def test_a_kill_repeats_the_step_in_flight_and_no_other(
    collector_server: ServerFactory, toys: Toys
) -> None:
    server = collector_server(environ=QUICK)
    quick, slow = toys(), toys(2)
    two_steps(server, quick.url, slow.url)
    first = runner(collector_server, server).spawn()
    (job_id,) = submit(server)
    first.wait_until(lambda: steps(server).get("first") == "succeeded")
    first.wait_until(lambda: steps(server).get("second") == "running")
    first.kill()
    second = runner(collector_server, server).spawn()
    second.wait_until(lambda: states(server) == {"succeeded": 1})
    document = job(server, job_id)
    assert document["attempts"] == 2, "a runner that died cost one"
    assert calls(quick) == {f"{job_id}:first": 1}
    assert set(calls(slow)) == {f"{job_id}:second"}, "the same token again"
    succeeded = rows(server, "SELECT count(*) FROM jobs_jobevent WHERE state = 'succeeded'")
    assert succeeded == [(1,)]


@pytest.mark.long
def test_a_thawed_runner_completes_nothing_that_others_have_completed(
    collector_server: ServerFactory, toys: Toys
) -> None:
    server = collector_server(environ=QUICK)
    quick, slow = toys(), toys(4)
    two_steps(server, quick.url, slow.url)
    first = runner(collector_server, server).spawn()
    ids = submit(server, 4)
    in_call = "SELECT count(*) FROM jobs_jobstep WHERE name = 'second' AND state = 'running'"
    first.wait_until(lambda: rows(server, in_call) == [(4,)])
    freeze(first)
    second = runner(collector_server, server).spawn()
    second.wait_until(lambda: states(server) == {"succeeded": 4})
    first.send(signal.SIGCONT)
    first.wait_for_line(lambda line: "thought dead" in line)
    assert states(server) == {"succeeded": 4}
    done = rows(
        server,
        "SELECT job_id, count(*) FROM jobs_jobevent WHERE state = 'succeeded' GROUP BY job_id",
    )
    assert [count for _, count in done] == [1] * 4
    assert {job(server, one)["status"] for one in ids} == {"succeeded"}
    # Under its new name it works on.
    second.stop()
    submit(server)
    first.wait_until(lambda: states(server) == {"succeeded": 5})


@pytest.mark.long
def test_a_stop_gives_back_what_does_not_end_and_it_costs_no_attempt(
    collector_server: ServerFactory, toys: Toys
) -> None:
    server = collector_server(environ=QUICK)
    quick, slow = toys(), toys(30)
    two_steps(server, quick.url, slow.url)
    stopping = runner(collector_server, server, COLLECTOR_JOBS_STOP_S="1").spawn()
    (job_id,) = submit(server)
    stopping.wait_until(lambda: steps(server).get("second") == "running")
    assert stopping.stop(signal.SIGTERM) == os.EX_OK
    document = job(server, job_id)
    assert (document["status"], document["attempts"]) == ("queued", 0)
    assert rows(server, "SELECT count(*) FROM jobs_runner") == [(0,)]
    assert calls(quick) == {f"{job_id}:first": 1}


def test_a_second_ctrl_c_gives_everything_back_at_once(
    collector_server: ServerFactory, toys: Toys
) -> None:
    server = collector_server(environ=QUICK)
    quick, slow = toys(), toys(3000)
    two_steps(server, quick.url, slow.url)
    # Longer than the test may take, so that only the second word can end it.
    patient = {"COLLECTOR_JOBS_STOP_S": "3000", "COLLECTOR_STOP_DEADLINE_S": "3100"}
    stopping = runner(collector_server, server, **patient).spawn()
    (job_id,) = submit(server)
    stopping.wait_until(lambda: steps(server).get("second") == "running")
    stopping.send(signal.SIGINT)
    stopping.wait_for_line(lambda line: "stopping" in line)
    stopping.send(signal.SIGINT)
    assert stopping.wait() == os.EX_OK
    assert job(server, job_id)["status"] == "queued"


def test_a_cancellation_reaches_a_call_under_way(
    collector_server: ServerFactory, toys: Toys
) -> None:
    server = collector_server(environ=QUICK)
    quick, slow = toys(), toys(60)
    two_steps(server, quick.url, slow.url)
    running = runner(collector_server, server).spawn()
    (job_id,) = submit(server)
    running.wait_until(lambda: steps(server).get("second") == "running")
    answer = server.client().post(f"/jobs/{job_id}/cancel")
    assert answer.status_code in (200, 202), answer.text
    running.wait_until(lambda: states(server) == {"cancelled": 1})
    assert running.stop() == os.EX_OK


@pytest.mark.long
@pytest.mark.once
def test_jobs_outlive_a_database_that_goes_away(
    collector_server: ServerFactory, toys: Toys, postgres_dsn: str
) -> None:
    server = collector_server(environ=QUICK | {"COLLECTOR_DATABASE_URL": postgres_dsn})
    quick, slow = toys(), toys(0.5)
    two_steps(server, quick.url, slow.url)
    with postgres_proxy(postgres_dsn) as (through, proxy):
        parts = conninfo_to_dict(through)
        url = f"postgresql://{parts['user']}@127.0.0.1:{proxy.port}/{parts['dbname']}"
        running = runner(collector_server, server, COLLECTOR_DATABASE_URL=url).spawn()
        ids = submit(server, 20)
        running.wait_until(lambda: states(server).get("succeeded", 0) >= 3)
        proxy.cut()
        running.wait_for_line(lambda line: "cannot be" in line)
        proxy.heal()
        running.wait_until(lambda: states(server) == {"succeeded": 20})
        assert running.stop() == os.EX_OK
    assert calls(quick) == {f"{one}:first": 1 for one in ids}
    assert set(calls(slow)) == {f"{one}:second" for one in ids}
