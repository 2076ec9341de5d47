"""The real server: a refused record, the command, a kill in between, everything stored once."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import httpx
import psycopg
import pytest

from tests.conftest import ServerFactory
from tests.servers.collector import ROOT, CollectorServer

CONFIG = """
[[sinks]]
name = "orders"
backend = "sinks.backends.postgres.PostgresSink"
required = true
options = {{ dsn = "env:ORDERS_DSN", table = "orders", columns = {{ id = "id", amount = "payload.amount" }} }}
pipeline = {{ max_wait_s = 0.01 }}
"""  # noqa: E501


def manage(server: CollectorServer, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout or done.stderr


def redrive(server: CollectorServer, *arguments: str) -> tuple[int, dict[str, Any]]:
    status, text = manage(server, "redrive", "--sink", "orders", "--json", *arguments)
    return status, json.loads(text)


def amounts(dsn: str) -> list[int]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute("SELECT amount FROM orders ORDER BY amount").fetchall()
    return [row[0] for row in rows]


# A dozen commands, each a process of its own, wait for two cores.
@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_redrive_outlives_the_server_that_began_it(
    collector_server: ServerFactory, postgres_dsn: str, tmp_path: Any
) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id bigint, amount int CHECK (amount >= 0))")
    server = collector_server(environ={"ORDERS_DSN": postgres_dsn}, started=False)
    config = tmp_path / "sinks.toml"
    config.write_text(CONFIG.format())
    status, said = manage(server, "config", "apply", "--yes", str(config))
    assert status == 0, said
    server.start()
    lines = [{"message": f"order {n}", "amount": -n if n % 50 == 0 else n} for n in range(1, 201)]
    answer = httpx.post(
        f"{server.url}/logs?ack=stored", json=lines, timeout=60, headers={"Connection": "close"}
    )
    assert answer.status_code == 202
    good = [n for n in range(1, 201) if n % 50]
    server.wait_until(lambda: redrive(server, "--all", "--dry-run")[1]["letters"] == 4)
    assert amounts(postgres_dsn) == good
    assert (
        'dead_letters_total{reason="permanent",sink="orders"} 4.0'
        in httpx.get(f"{server.url}/metrics", headers={"Connection": "close"}).text
    )

    status, found = redrive(server, "--all", "--wait", "--timeout", "60")
    assert (status, found["state"], found["refused"]) == (1, "done", 4)

    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE orders DROP CONSTRAINT orders_amount_check")
    # Hold the table, so that the server is killed with the chunk on its way.
    with psycopg.connect(postgres_dsn) as holder:
        holder.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        status, found = redrive(server, "--all")
        assert status == 0
        with psycopg.connect(postgres_dsn, autocommit=True) as watcher:
            server.wait_until(
                lambda: bool(
                    watcher.execute(
                        "SELECT 1 FROM pg_locks WHERE relation = 'orders'::regclass AND NOT granted"
                    ).fetchone()
                )
            )
        server.send(9)
        server.wait()
    server = collector_server(
        environ={
            name: server.environ[name]
            for name in ("ORDERS_DSN", "COLLECTOR_DATABASE_URL")
            if name in server.environ
        },
        data_dir=server.data_dir,
        prepare=False,
    )
    server.wait_until(lambda: len(amounts(postgres_dsn)) >= 200)
    server.wait_until(
        lambda: (
            redrive(server, "--all", "--dry-run")[1]["letters"] == 0
            and "redriving" not in states(server)
        )
    )
    assert states(server) == {"redriven": 4}
    assert amounts(postgres_dsn) == sorted(one["amount"] for one in lines)  # type: ignore[type-var]


def states(server: CollectorServer) -> dict[str, int]:
    script = (
        "import json, collections; from sinks.models import DeadLetter; "
        "print(json.dumps(collections.Counter(DeadLetter.objects.values_list('state', flat=True))))"
    )
    _, text = manage(server, "shell", "--no-imports", "-c", script)
    found: dict[str, int] = json.loads(text.strip().splitlines()[-1])
    return found
