"""A heartbeat's whole way: a ping to a real server, its sink, a real checker's feed, a flip."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.conftest import ServerFactory
from tests.healthmon.checker.watched import (
    CHECKER,
    apply,
    assert_a_true_history,
    flips,
    holders,
    rows,
    statuses,
)
from tests.servers.collector import ROOT, CollectorServer

NEW_ADDRESS = """
from healthmon.heartbeats.secret import new_ping_secret
from healthmon.targets.models import Target
for name in {names!r}:
    print("secret", name, new_ping_secret(Target.objects.get(name=name)))
"""


def _addresses(server: CollectorServer, directory: Path, *names: str) -> dict[str, str]:
    """Heartbeat targets of one ping a day, made now; their ping addresses by name."""
    apply(server, directory, *(
        {"name": name, "kind": "heartbeat", "interval_s": 86_400.0} for name in names
    ))  # fmt: skip
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "-c", NEW_ADDRESS.format(names=names)],
        cwd=ROOT, env=server.environ, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.findall(r"^secret (\S+) (\S+)$", done.stdout, re.MULTILINE)
    return {name: f"/ping/{secret}" for name, secret in found}


def _checker(start: ServerFactory, server: CollectorServer) -> CollectorServer:
    keep = ("COLLECTOR_DATABASE_URL",)
    return start(
        environ={name: server.environ[name] for name in keep if name in server.environ},
        data_dir=server.data_dir,
        command=CHECKER,
        started=False,
        prepare=False,
    ).spawn()


def test_a_target_that_was_made_a_moment_ago_hears_its_first_ping(
    collector_server: ServerFactory, tmp_path: Path
) -> None:
    server = collector_server()
    checker = _checker(collector_server, server)
    checker.wait_until(lambda: holders(checker).get(checker.pid) == 64)
    addresses = _addresses(server, tmp_path, "backup", "report")
    client = server.client()
    assert client.post(f"{addresses['backup']}/fail", content=b"disk full").status_code == 200
    assert client.get(addresses["report"]).status_code == 200
    checker.wait_until(lambda: statuses(checker) == {"backup": "down", "report": "up"})
    assert rows(checker, "SELECT count(*) FROM healthmon_incident WHERE closed_at IS NULL") == [
        (1,)
    ]
    assert client.get(addresses["backup"]).status_code == 200
    checker.wait_until(lambda: statuses(checker) == {"backup": "up", "report": "up"})
    assert_a_true_history(checker)


def test_pings_that_came_while_no_checker_ran_are_heard_by_the_next(
    collector_server: ServerFactory, tmp_path: Path
) -> None:
    """It reads them while it is still learning which targets there are."""
    server = collector_server()
    names = [f"job{number}" for number in range(30)]
    addresses = _addresses(server, tmp_path, *names)
    client = server.client()
    for name in names:
        assert client.get(f"{addresses[name]}/fail").status_code == 200
    server.wait_until(
        lambda: rows(server, "SELECT count(*) FROM healthmon_heartbeat WHERE seq > 0") == [(30,)]
    )
    checker = _checker(collector_server, server)
    checker.wait_until(lambda: list(statuses(checker).values()).count("down") == 30)
    assert len(flips(checker)) == 30
    assert_a_true_history(checker)
    checker.send(signal.SIGTERM)
    assert checker.wait() == os.EX_OK
