"""`manage.py run_checker` as a person or a cron job uses it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ServerFactory
from tests.healthmon.checker.watched import CHECKER, Service, apply, flips, rows, tcp
from tests.servers.collector import ROOT, CollectorServer


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.stop()


@pytest.fixture
def installation(
    collector_server: ServerFactory, service: Service, tmp_path: Path
) -> CollectorServer:
    """Two targets that answer and one that does not; nothing runs."""
    made = collector_server(command=CHECKER, started=False)
    silent = Service()
    silent.stop()
    apply(
        made,
        tmp_path,
        tcp("shop", service.port),
        tcp("mail", service.port),
        tcp("dead", silent.port),
        tcp("resting", service.port, paused=True),
    )
    return made


def _run(installation: CollectorServer, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "run_checker", *words],
        cwd=ROOT,
        env=installation.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_try_prints_and_stores_nothing(installation: CollectorServer) -> None:
    done = _run(installation, "--target", "shop", "--target", "dead", "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["target"], one["outcome"]) for one in found] == [
        ("shop", "ok"),
        ("dead", "failed"),
    ]
    assert "refused" in found[1]["error"]
    assert found[0]["connect_ms"] >= 0
    assert done.returncode == 1
    assert rows(installation, "SELECT count(*) FROM healthmon_proberesult", database="records") == [
        (0,)
    ]


def test_a_try_of_what_answers_ends_well_and_in_one_line(installation: CollectorServer) -> None:
    done = _run(installation, "--target", "shop")
    assert done.returncode == 0
    [line] = done.stdout.splitlines()
    assert line.startswith("shop: ok ")
    assert "connect" in line


def test_a_target_that_is_not_there_is_named(installation: CollectorServer) -> None:
    done = _run(installation, "--target", "nowhere")
    assert done.returncode != 0
    assert "'nowhere'" in done.stderr


def test_one_round_probes_each_target_once_and_stores_it(installation: CollectorServer) -> None:
    done = _run(installation, "--once", "--json")
    found = {one["target"]: one["outcome"] for one in map(json.loads, done.stdout.splitlines())}
    assert found == {"shop": "ok", "mail": "ok", "dead": "failed"}
    assert done.returncode == 1
    stored = rows(installation, "SELECT outcome FROM healthmon_proberesult", database="records")
    assert sorted(outcome for (outcome,) in stored) == ["failed", "ok", "ok"]
    assert sorted(to for _, _, _, to in flips(installation)) == ["down", "paused", "up", "up"]
    held = rows(installation, "SELECT count(*) FROM healthmon_probeslot WHERE holder <> ''")
    assert held == [(0,)]
