"""`/metrics` with two server workers under load: every name is there, non-zero, and sums right."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.servers.collector import ROOT, CollectorServer, clean_environ
from tests.servers.installation import stored_messages

pytestmark = pytest.mark.server

REQUESTS, RECORDS_EACH = 120, 100
NAMES = [
    "ingest_requests_total",
    "ingest_errors_total",
    "ingest_records_total",
    "ingest_rate",
    "batch_size_count",
    "batches_flushed_total",
    "flush_reason_total",
    "flush_duration_seconds_count",
    "write_latency_seconds_count",
    "worker_failures_total",
    "worker_retries_total",
    "records_stored_total",
    "records_dropped_total",
    "queue_depth",
    "queue_bytes",
    "active_workers_count",
]

BROKEN_SINK = """
from sinks.models import SinkConfig
SinkConfig.objects.create(
    name="elsewhere", backend="sinks.backends.postgres.PostgresSink", required=False,
    options={"dsn": "env:ELSEWHERE", "table": "t", "columns": {"message": "message"}},
    # Soon full in each worker, so that it drops: it is not required.
    pipeline={"max_records": 100, "capacity_records": 1000},
)
"""


def samples(server: CollectorServer) -> dict[str, float]:
    """Each metric's sum over its labels. Of imbalances none may be there, in any sample."""
    sums: dict[str, float] = defaultdict(float)
    imbalances: dict[str, float] = {}
    for family in text_string_to_metric_families(server.client().get("/metrics").text):
        for sample in family.samples:
            sums[sample.name] += sample.value
            if sample.name == "ledger_imbalance":
                imbalances[sample.labels["sink"]] = sample.value
    assert imbalances.keys() >= {"database", "elsewhere"}
    assert not any(imbalances.values())
    return sums


def send(server: CollectorServer, requests: int, pids: set[int]) -> None:
    for _ in range(requests):
        # A connection each, so that both workers get some.
        with server.client() as client:
            records = [{"message": "m", "level": "INFO"}] * RECORDS_EACH
            assert client.post("/logs", json=records).status_code == 202
            pids.add(client.get("/healthz").json()["pid"])


def test_two_workers_are_scraped_as_one(
    collector_server: Callable[..., CollectorServer], tmp_path: Path
) -> None:
    environ = {
        "COLLECTOR_WORKERS": "2",
        "COLLECTOR_STOP_DEADLINE_S": "10",
        "ELSEWHERE": "postgresql://nobody@127.0.0.1:1/none",
    }
    server = collector_server(environ=environ, started=False)
    subprocess.run(
        (sys.executable, "manage.py", "shell", "-c", BROKEN_SINK),
        cwd=ROOT,
        env=clean_environ(server.data_dir, {**server.environ, **environ}),
        check=True,
        capture_output=True,
        timeout=120,
    )
    server.start()
    pids: set[int] = set()
    threads = [threading.Thread(target=send, args=(server, REQUESTS // 4, pids)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert len(pids) == 2
    assert server.client().post("/logs", content=b"{broken").status_code in (400, 415)

    wanted = REQUESTS * RECORDS_EACH
    seen: set[str] = set()
    turn = threading.Event()
    for _ in range(200):
        found = samples(server)
        seen |= {name for name in NAMES if found[name] > 0}
        # The sink that is away has dropped whatever it does not hold.
        ended_elsewhere = found["records_dropped_total"] + found["queue_depth"]
        if seen == set(NAMES) and found["records_stored_total"] == ended_elsewhere == wanted:
            break
        turn.wait(0.2)  # the heart works rates out every few seconds
    assert seen == set(NAMES)
    assert found["ingest_records_total"] == wanted
    assert found["records_stored_total"] == wanted
    assert found["ingest_requests_total"] >= REQUESTS + 1
    assert found["ingest_errors_total"] >= 1
    assert ended_elsewhere == wanted
    assert found["batches_flushed_total"] == found["flush_reason_total"]
    assert found["batch_size_sum"] >= wanted

    # What a dead worker counted stays counted.
    (directory,) = (server.data_dir / "metrics").iterdir()
    assert {path.suffix for path in directory.iterdir()} == {".db"}
    server.stop()
    assert len(stored_messages(server)) == wanted
    assert not list((server.data_dir / "metrics").iterdir())


def test_what_a_killed_server_left_is_swept(tmp_path: Path) -> None:
    from collector_site import metricsdir

    left = tmp_path / "metrics" / "999999999"
    left.mkdir(parents=True)
    (left / "counter_1.db").write_bytes(b"x")
    (tmp_path / "metrics" / "1").mkdir()  # of a living process
    made = metricsdir.make(tmp_path)
    assert {path.name for path in made.parent.iterdir()} == {"1", made.name}
    metricsdir.remove()
    assert [path.name for path in made.parent.iterdir()] == ["1"]


def test_stats_are_json_of_this_process(collector_server: Callable[..., CollectorServer]) -> None:
    server = collector_server()
    body = json.loads(server.client().get("/stats").content)
    assert body["pid"] == server.client().get("/healthz").json()["pid"]
    operators = [one for one in body["pipelines"] if not one["key"].startswith("internal-")]
    assert [one["name"] for one in operators] == ["database"]
    server.stop()
