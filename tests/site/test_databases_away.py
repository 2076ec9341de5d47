"""The real server while its databases are away: it starts, takes in, says why, and goes on."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.servers.collector import CollectorServer
from tests.servers.proxy import Proxy

pytestmark = [pytest.mark.server, pytest.mark.once]

Start = Callable[..., CollectorServer]
SUPERVISOR = (sys.executable, "-m", "collector_site.supervisor")
GENEROUS_S = 180.0


class Late:
    """A real PostgreSQL that is not there yet: nothing listens, or what listens never answers."""

    def __init__(self, dsn: str, *, stalled: bool) -> None:
        with psycopg.connect(dsn) as connection:
            host, port = connection.info.host, connection.info.port
        self._target = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
        self.proxy = Proxy(self._target)
        self._stalled = stalled
        if stalled:
            self.proxy.stall()
        else:
            self.proxy.close()
        parts = conninfo_to_dict(dsn)
        self.url = f"postgresql://{parts['user']}@127.0.0.1:{self.proxy.port}/{parts['dbname']}"

    def come(self) -> None:
        if self._stalled:
            self.proxy.heal()
        else:
            self.proxy = Proxy(self._target, port=self.proxy.port)


@contextmanager
def late(dsn: str, *, stalled: bool = False) -> Iterator[Late]:
    database = Late(dsn, stalled=stalled)
    try:
        yield database
    finally:
        database.proxy.close()


def causes(client: httpx.Client) -> dict[str, str]:
    return {one["check"]: one["cause"] for one in client.get("/readyz").json()["causes"]}


def eventually(true: Callable[[], bool], what: str) -> None:
    """The server is another process: it is asked until it is so."""
    due = time.monotonic() + GENEROUS_S
    while not true():
        assert time.monotonic() < due, what
        time.sleep(0.1)


def settled(client: httpx.Client) -> bool:
    ledger = client.get("/stats").json()["ledger"]
    return bool(ledger) and not any(row["in_flight"] for row in ledger)


def page(client: httpx.Client, path: str) -> httpx.Response:
    return client.get(path, headers={"Accept": "text/html"})


@pytest.mark.long
@pytest.mark.parametrize("stalled", [False, True], ids=["refuses", "hangs"])
def test_a_first_start_without_any_database(
    collector_server: Start, postgres_dsn: str, stalled: bool
) -> None:
    with late(postgres_dsn, stalled=stalled) as database:
        server = collector_server(
            environ={"COLLECTOR_DATABASE_URL": database.url}, prepare=False, command=SUPERVISOR
        )
        client = server.client()
        assert "the preparation is tried again" in server.output
        answer = client.post("/logs", json=[{"message": f"m{number}"} for number in range(100)])
        assert answer.status_code == 202, answer.text
        # Without keys that were ever read, nobody but this machine is believed.
        forwarded = client.post("/logs", json=[{}], headers={"X-Forwarded-For": "10.0.0.7"})
        assert forwarded.status_code == 503
        assert client.get("/healthz").status_code == 200
        for path in ("/admin/", "/admin/login/", "/admin/ingest/logrecord/"):
            shown = page(client, path)
            assert shown.status_code == 503
            assert "The control database is away" in shown.text
            assert "Traceback" not in shown.text
        why = "it does not answer" if stalled else "nothing listens at its address"
        eventually(lambda: why in causes(client).get("database_default", ""), "no cause")
        assert "api_keys" in causes(client)
        assert "127.0.0.1" not in str(causes(client)), "the address is not for everybody"
        database.come()
        eventually(lambda: causes(client) == {}, "the database came and it is not ready")
        eventually(lambda: settled(client), "the database came and the records stay")
        eventually(lambda: page(client, "/admin/login/").status_code == 200, "no login")
        server.wait_for_line(lambda line: "The databases are prepared now" in line)
        assert len([line for line in server.lines if "password  " in line]) == 1
        assert server.stop() == 0
    with psycopg.connect(postgres_dsn) as connection:
        count = connection.execute("SELECT count(*), min(sink_count) FROM (SELECT 1) one, "
            "(SELECT count(*) AS sink_count FROM sinks_sinkconfig) two").fetchone()  # fmt: skip
        stored = connection.execute("SELECT count(DISTINCT message) FROM ingest_logrecord")
        assert count == (1, 1)
        assert stored.fetchone() == (100,)


@pytest.mark.long
def test_the_admin_works_while_only_the_records_are_away(
    collector_server: Start, postgres_dsn: str
) -> None:
    with late(postgres_dsn) as database:
        server = collector_server(
            environ={"COLLECTOR_RECORDS_DATABASE_URL": database.url},
            prepare=False,
            command=SUPERVISOR,
        )
        client = server.client(follow_redirects=True)
        assert client.post("/logs", json=[{"message": "kept"}]).status_code == 202
        log_in(client, password_in(server.output))
        for path in (
            "/admin/",
            "/admin/sinks/sinkconfig/",
            "/admin/control/process/",
            "/admin/control/apikey/",
        ):
            shown = page(client, path)
            assert shown.status_code == 200, (path, shown.text[:2000])
        for path in ("/admin/ingest/logrecord/", "/admin/ingest/auditevent/"):
            shown = page(client, path)
            assert shown.status_code == 503
            assert "the records database is away: nothing listens" in shown.text.replace(
                "The", "the"
            )
        eventually(lambda: causes(client).keys() == {"database_records"}, "no cause")
        database.come()
        eventually(lambda: causes(client) == {}, "the database came and it is not ready")
        eventually(lambda: settled(client), "the database came and the record stays")
        assert page(client, "/admin/ingest/logrecord/").status_code == 200
        assert server.stop() == 0


def password_in(output: str) -> str:
    found = re.search(r"^\s+password\s+(\S+)$", output, re.MULTILINE)
    assert found, output
    return found[1]


def log_in(client: httpx.Client, password: str) -> None:
    client.get("/admin/login/")
    answer = client.post(
        "/admin/login/?next=/admin/",
        data={
            "username": "admin",
            "password": password,
            "csrfmiddlewaretoken": client.cookies["collector_csrf"],
        },
        headers={"Referer": str(client.base_url)},
    )
    assert answer.status_code == 200
    assert "Log out" in answer.text


@pytest.mark.long
@pytest.mark.parametrize("how", ["cut", "stall"])
def test_a_database_that_goes_and_comes_leaves_ingest_alone(
    collector_server: Start, postgres_dsn: str, how: str
) -> None:
    with late(postgres_dsn) as database:
        database.come()
        server = collector_server(environ={"COLLECTOR_DATABASE_URL": database.url})
        client = server.client()
        assert client.post("/logs", json=[{"message": "before"}]).status_code == 202
        eventually(lambda: settled(client), "not stored")
        getattr(database.proxy, how)()
        eventually(lambda: "database_default" in causes(client), "no cause")
        for _ in range(20):
            assert client.post("/logs", json=[{"message": "meanwhile"}]).status_code == 202
        assert client.get("/healthz").status_code == 200
        assert page(client, "/admin/").status_code == 503
        database.proxy.heal()
        eventually(lambda: causes(client) == {}, "it came back and the server is not ready")
        eventually(lambda: settled(client), "it came back and the records stay")
        assert page(client, "/admin/login/").status_code == 200
        assert server.stop() == 0


def test_a_restart_without_databases_goes_by_the_last_good_copies(
    collector_server: Start, postgres_dsn: str, tmp_path: Path
) -> None:
    token = "bootstrap-key-for-tests-0123456789"
    data_dir = tmp_path / "kept"
    with late(postgres_dsn) as database:
        database.come()
        environ = {
            "COLLECTOR_DATABASE_URL": database.url,
            "COLLECTOR_BOOTSTRAP_API_KEY": token,
        }
        first = collector_server(environ=environ, data_dir=data_dir, command=SUPERVISOR)
        assert first.stop() == 0
        database.proxy.close()
        for path in ("snapshot/api_keys.json", "sinks.json"):
            assert (data_dir / path).stat().st_mode & 0o777 == 0o600
            assert token not in (data_dir / path).read_text()
        server = collector_server(
            environ=environ, data_dir=data_dir, prepare=False, command=SUPERVISOR
        )
        client = server.client()
        bearer = {"Authorization": f"Bearer {token}"}
        assert client.post("/logs", json=[{"message": "a"}], headers=bearer).status_code == 202
        assert client.post("/logs", json=[{"message": "b"}]).status_code == 401, "a key exists"
        database.come()
        eventually(lambda: causes(client) == {}, "it came and the server is not ready")
        assert server.stop() == 0


@pytest.mark.long
@pytest.mark.parametrize("fault", ["damaged", "closed"])
def test_a_control_file_that_cannot_be_used(
    collector_server: Start, tmp_path: Path, fault: str
) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    file = data_dir / "control.sqlite3"
    if fault == "damaged":
        file.write_bytes(b"this is not a database" * 400)
    else:
        file.mkdir()  # also for root a file that cannot be opened
    server = collector_server(
        environ={"COLLECTOR_DATABASE_URL": "sqlite:///"},
        data_dir=data_dir,
        prepare=False,
        command=SUPERVISOR,
    )
    client = server.client()
    assert client.post("/logs", json=[{"message": "kept"}]).status_code == 202
    why = "its file is damaged" if fault == "damaged" else "its file cannot be opened"
    eventually(lambda: why in causes(client).get("database_default", ""), "no cause")
    shown = page(client, "/admin/")
    assert shown.status_code == 503
    assert why in shown.text
    # The records have a file of their own, which was prepared.
    eventually(lambda: settled(client), "the record was not stored")
    if fault == "damaged":
        file.unlink()
    else:
        file.rmdir()
    eventually(lambda: causes(client) == {}, "the file is back and it is not ready")
    assert server.stop() == 0


def test_a_user_that_is_refused_is_named_as_the_cause(
    collector_server: Start, postgres_dsn: str
) -> None:
    with late(postgres_dsn) as database:
        database.come()
        url = re.sub(r"//[^@]*@", "//nobody:hidden-word@", database.url)
        server = collector_server(
            environ={"COLLECTOR_DATABASE_URL": url}, prepare=False, command=SUPERVISOR
        )
        assert "the server has no such database or user" in server.output
        assert server.client().post("/logs", json=[{"message": "kept"}]).status_code == 202
        assert "hidden-word" not in server.output
