"""The suite's environment and the fixtures every part of it shares.

Runs on SQLite files in a temporary data directory; with `COLLECTOR_TEST_DB=postgresql` on a real
PostgreSQL that the suite starts by itself (or `TEST_DATABASE_URL`). The environment is settled
here, before Django's settings are first read.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings

from tests.servers.collector import SERVER, CollectorServer, clean_environ
from tests.servers.installation import Prepared, prepare_installation
from tests.servers.postgres import SHARED_URL, postgres

ON_POSTGRESQL = os.environ.get("COLLECTOR_TEST_DB", "sqlite") == "postgresql"
_DATABASE_FIXTURES = {"db", "transactional_db", "django_db_setup", "live_server", "admin_client"}
_data_dir = Path(tempfile.mkdtemp(prefix="collector-test-"))


def _settle_environment() -> None:
    kept = {
        name: os.environ[name] for name in ("COLLECTOR_TEST_DB", SHARED_URL) if name in os.environ
    }
    settled = clean_environ(_data_dir, kept)
    if ON_POSTGRESQL:
        settled["COLLECTOR_DATABASE_URL"] = os.environ[SHARED_URL] = postgres.start()
        settled[SHARED_URL] = os.environ[SHARED_URL]
    # A pooled connection would keep a test database from being dropped.
    settled["COLLECTOR_DATABASE_POOL_SIZE"] = "0"
    settled["COLLECTOR_LOG_LEVEL"] = "WARNING"
    settled["DJANGO_SETTINGS_MODULE"] = "collector_site.settings"
    settled.pop("PORT")
    os.environ.clear()
    os.environ.update(settled)


_settle_environment()
# How long an example takes says nothing on a shared machine.
hypothesis_settings.register_profile("shared machine", deadline=None)
hypothesis_settings.load_profile("shared machine")


def pytest_configure(config: pytest.Config) -> None:
    from django.conf import settings

    # Cheap on purpose: tests log in often and prove nothing about the hash.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    interval = config.getoption("--switch-interval")
    if interval:
        sys.setswitchinterval(interval)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--switch-interval",
        type=float,
        default=0.0,
        help="sys.setswitchinterval for the run: tiny values shake out races",
    )
    parser.addoption(
        "--fallen",
        metavar="FILE",
        help="write there which tests fell, a line each; nothing when one ended its process",
    )


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    wanted = config.getoption("--fallen")
    if wanted:
        told = terminalreporter.stats
        fell = [*told.get("failed", []), *told.get("error", [])]
        # A process that crashed, or was ended because it hung, is told of as a test that fell.
        died = any(
            "::" not in one.nodeid or str(one.longrepr).startswith("worker ") for one in fell
        )
        names = sorted({one.nodeid for one in fell}) if not died else []
        Path(wanted).write_text("".join(f"{one}\n" for one in names), encoding="utf-8")


def pytest_unconfigure(config: pytest.Config) -> None:
    postgres.stop()
    shutil.rmtree(_data_dir, ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        marker = item.get_closest_marker("django_db")
        if marker is not None or fixtures & _DATABASE_FIXTURES:
            item.add_marker(pytest.mark.database)
        if fixtures & {"postgres_dsn", "postgres_server"}:
            item.add_marker(pytest.mark.postgres)
        if fixtures & {"collector_server"}:
            item.add_marker(pytest.mark.server)
        if marker is not None and "databases" not in marker.kwargs and not marker.args:
            # Control and records are both part of the installation: a test may use either.
            both = pytest.mark.django_db(**{**marker.kwargs, "databases": "__all__"})
            item.add_marker(both, append=False)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Bring the default tenant back after a transactional test has emptied the tables."""
    from django.apps import apps
    from django.db import connections
    from django.db.models.signals import post_migrate

    def default_tenant(using: str, **_: Any) -> None:
        if using == "default":
            tenants = apps.get_model("control", "Tenant").objects.using(using)
            tenants.get_or_create(slug="default", defaults={"name": "Default"})

    post_migrate.connect(
        default_tenant,
        sender=apps.get_app_config("control"),
        weak=False,
        dispatch_uid="tests.default_tenant",
    )
    yield
    with django_db_blocker.unblock():
        # The records alias mirrors the default one, and nobody else closes a mirror's connection.
        connections.close_all()


@pytest.fixture(scope="session", autouse=True)
def _quick_emptying() -> None:
    from tests import emptying

    emptying.install()


@pytest.fixture(autouse=True)
def _no_connection_left_open(
    request: pytest.FixtureRequest, django_db_blocker: Any
) -> Iterator[None]:
    """Code that closes old connections must find none in a test that may not use any."""
    yield
    if request.node.get_closest_marker("database"):
        from django.db import connections

        with django_db_blocker.unblock():
            connections.close_all()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The data directory this run's settings point at; processes of a parallel run share it."""
    from django.conf import settings

    directory: Path = settings.COLLECTOR.server.data_dir
    return directory


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a real PostgreSQL, one for the session, on either run."""
    yield postgres.start()
    if not ON_POSTGRESQL:
        postgres.stop()


@pytest.fixture
def postgres_dsn(postgres_server: str) -> Iterator[str]:
    """A database of the test's own on a real PostgreSQL."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


ServerFactory = Callable[..., CollectorServer]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """An installation prepared once, for tests to copy."""
    made = Prepared(tmp_path_factory.mktemp("prepared") / "data", on_postgresql=ON_POSTGRESQL)
    yield made
    made.drop()


@pytest.fixture
def collector_server(
    prepared: Prepared, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[ServerFactory]:
    """Starts real servers: `collector_server(environ={…}, prepare=True)`; ends them by pid.

    Each has a data directory of its own (`data_dir=` to share one) and is migrated first. On the
    PostgreSQL run each installation gets a database of its own.
    """
    servers: list[CollectorServer] = []
    databases: list[str] = []

    def start(
        *,
        environ: Mapping[str, str] | None = None,
        data_dir: Path | None = None,
        prepare: bool = True,
        command: tuple[str, ...] = SERVER,
        started: bool = True,
    ) -> CollectorServer:
        variables = dict(environ or {})
        directory = data_dir or tmp_path / f"data-{len(servers)}"
        own = not any("DATABASE_URL" in name for name in variables)
        if ON_POSTGRESQL and own:
            like = prepared.database() if prepare else ""
            databases.append(postgres.create_database(like=like))
            variables["COLLECTOR_DATABASE_URL"] = databases[-1]
        if prepare and own and not directory.exists():
            prepared.copy_to(directory)
        elif prepare:
            prepare_installation(directory, variables)
        server = CollectorServer(data_dir=directory, environ=variables, command=command)
        servers.append(server)
        return server.start() if started else server

    yield start
    for server in servers:
        server.end()
    for url in databases:
        postgres.drop_database(url)
