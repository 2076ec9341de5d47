"""A heartbeat's whole way: a ping to a real server, its sink, a real checker's feed, a flip."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import ServerFactory
from tests.healthmon.checker.watched import (
    CHECKER,
    assert_a_true_history,
    flips,
    holders,
    rows,
    statuses,
)
from tests.servers.collector import ROOT, CollectorServer

# At moments that differ, so that of those who follow the targets now one is first, now another.
NEW_TARGETS = """
import time
from healthmon.heartbeats.secret import new_ping_secret
from healthmon.targets.models import Target
for number in range({count}):
    time.sleep({every_s})
    target = Target.objects.create(name=f"job{{number}}", kind="heartbeat", interval_s=86400)
    print(f"/ping/{{new_ping_secret(target)}}", flush=True)
"""


def _new_addresses(server: CollectorServer, count: int, every_s: float = 0.0) -> Iterator[str]:
    """Make heartbeat targets of one ping a day; each one's ping address as soon as it is there."""
    script = NEW_TARGETS.format(count=count, every_s=every_s)
    with subprocess.Popen(
        [sys.executable, "manage.py", "shell", "-c", script],
        cwd=ROOT, env=server.environ, stdout=subprocess.PIPE, text=True,
    ) as making:  # fmt: skip
        assert making.stdout is not None
        for line in making.stdout:
            if line.startswith("/ping/"):
                yield line.strip()
    assert making.returncode == 0


def _checker(start: ServerFactory, server: CollectorServer) -> CollectorServer:
    keep = ("COLLECTOR_DATABASE_URL",)
    return start(
        environ={name: server.environ[name] for name in keep if name in server.environ},
        data_dir=server.data_dir,
        command=CHECKER,
        started=False,
        prepare=False,
    ).spawn()


@pytest.mark.long
def test_targets_that_were_made_a_moment_ago_hear_their_first_ping(
    collector_server: ServerFactory,
) -> None:
    server = collector_server()
    checker = _checker(collector_server, server)
    checker.wait_until(lambda: holders(checker).get(checker.pid) == 64)
    client = server.client()
    addresses = list[str]()
    for address in _new_addresses(server, 12, every_s=0.27):
        addresses.append(address)
        # The first ping counts, however short a time ago its address was made.
        assert client.post(f"{address}/fail").status_code == 200
    checker.wait_until(lambda: list(statuses(checker).values()) == ["down"] * 12)
    opened = "SELECT count(*) FROM healthmon_incident WHERE closed_at IS NULL"
    assert rows(checker, opened) == [(12,)]
    for address in addresses:
        assert client.get(address).status_code == 200
    checker.wait_until(lambda: list(statuses(checker).values()) == ["up"] * 12)
    assert [to for _, _, _, to in flips(checker)] == ["down", "up"] * 12
    assert_a_true_history(checker)


def test_pings_that_came_while_no_checker_ran_are_heard_by_the_next(
    collector_server: ServerFactory,
) -> None:
    """It reads them while it is still learning which targets there are."""
    server = collector_server()
    client = server.client()
    for address in list(_new_addresses(server, 30)):
        assert client.get(f"{address}/fail").status_code == 200
    stored = "SELECT count(*) FROM healthmon_heartbeat WHERE seq > 0"
    server.wait_until(lambda: rows(server, stored) == [(30,)])
    checker = _checker(collector_server, server)
    checker.wait_until(lambda: list(statuses(checker).values()) == ["down"] * 30)
    assert [to for _, _, _, to in flips(checker)] == ["down"] * 30
    assert_a_true_history(checker)
    checker.send(signal.SIGTERM)
    assert checker.wait() == os.EX_OK
