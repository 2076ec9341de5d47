"""A batch lost on purpose in the real server: the alarm, the metric, the dashboard, the line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.servers.collector import GENEROUS_S, ROOT, CollectorServer
from tests.servers.forgetful import LOST

pytestmark = pytest.mark.server

FORGETFUL = (sys.executable, "-m", "tests.servers.forgetful")
ACCOUNT = """
from django.contrib.auth import get_user_model
get_user_model().objects.create_superuser("tester", "", "a-long-password")
"""


def manage(server: CollectorServer, *arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        (sys.executable, "manage.py", *arguments),
        cwd=ROOT,
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=GENEROUS_S,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def log_in(server: CollectorServer) -> httpx.Client:
    manage(server, "shell", "--no-imports", "-c", ACCOUNT)
    client = server.client(follow_redirects=True)
    page = client.get("/admin/login/")
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    assert token is not None
    account = {"username": "tester", "password": "a-long-password"}
    answer = client.post(
        "/admin/login/", data={"csrfmiddlewaretoken": token[1], "next": "/admin/", **account}
    )
    assert "Operations" in answer.text
    return client


@pytest.mark.long
def test_a_batch_lost_on_purpose_is_seen_everywhere(
    collector_server: Callable[..., CollectorServer],
) -> None:
    server = collector_server(command=FORGETFUL)
    client = server.client()
    sent = [{"message": LOST}, *({"message": f"beside {n}"} for n in range(6))]
    assert client.post("/logs", json=[{"message": "kept"}], params={"ack": "stored"}).is_success
    assert client.post("/logs", json=sent, params={"ack": "memory"}).status_code == 202
    line = server.wait_for_line(lambda text: "the ledger does not balance" in text)
    told = json.loads(line)
    assert (told["level"], told["sink"], told["tenant"]) == ("error", "database", "default")
    assert told["records"] == 7
    stats: Any = client.get("/stats").json()
    (alarm,) = stats["alarms"]
    assert (alarm["sink"], alarm["records"], alarm["log_id"]) == ("database", 7, stats["log_id"])
    metrics = client.get("/metrics").text
    assert re.search(r'^ledger_alarm\{.*sink="database".*\} 1\.0$', metrics, re.M)
    assert re.search(r'^ledger_imbalance\{.*sink="database".*\} 7\.0$', metrics, re.M)
    # It has the process write its figures, and fails as the books do not balance.
    ledger: Any = json.loads(
        manage(server, "ledger", "--json", "--timeout", str(GENEROUS_S), status=1)
    )
    assert [process["imbalance"] for process in ledger["processes"]] == [7]
    page = log_in(server).get("/admin/").text
    assert "The ledger of database does not balance: 7 records" in page
    assert f"log {stats['log_id']}" in page
    assert "off by 7" in page
    server.stop()
    assert re.search(r"database +default +8 .* 7$", server.output, re.M), server.output
