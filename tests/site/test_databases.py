"""Which databases the settings lead to, and which models live where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from collector_site.databases import databases, is_shared
from collector_site.routers import CollectorRouter
from control.config.settings import DatabaseSettings
from control.models import Tenant
from ingest.models import LogRecord

DATA = Path("/data")
PG = "postgresql://me:p%40ss@db.example:6432/logs?sslmode=require"


def names(**urls: Any) -> tuple[Any, Any]:
    made = databases(DatabaseSettings(**urls), DATA)
    return made["default"]["NAME"], made["records"]["NAME"]


def test_sqlite_is_two_files_in_the_data_directory() -> None:
    assert names() == ("/data/control.sqlite3", "/data/records.sqlite3")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////srv/db", ("/srv/db/control.sqlite3", "/srv/db/records.sqlite3")),
        ("sqlite:///sub", ("/data/sub/control.sqlite3", "/data/sub/records.sqlite3")),
        ("sqlite:////srv/my.db", ("/srv/my-control.sqlite3", "/srv/my-records.sqlite3")),
        ("sqlite:///", ("/data/control.sqlite3", "/data/records.sqlite3")),
        ("mysql://nope", ("/data/control.sqlite3", "/data/records.sqlite3")),
    ],
)
def test_a_sqlite_url_names_a_directory_or_a_stem(url: str, expected: tuple[str, str]) -> None:
    assert names(control=url) == expected


def test_sqlite_waits_writes_through_and_begins_immediately() -> None:
    options = databases(DatabaseSettings(), DATA)["records"]["OPTIONS"]
    assert options["transaction_mode"] == "IMMEDIATE"
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000", "foreign_keys=ON"):
        assert pragma in options["init_command"]


def test_one_postgresql_url_serves_both() -> None:
    made = databases(DatabaseSettings(control=PG), DATA)
    default = made["default"]
    assert (default["USER"], default["PASSWORD"], default["PORT"]) == ("me", "p@ss", 6432)
    assert default["OPTIONS"]["sslmode"] == "require"
    assert default["OPTIONS"]["pool"]["max_size"] == 12
    assert made["records"]["TEST"] == {"MIRROR": "default"}
    assert is_shared(made)


def test_without_a_pool_connections_are_kept_by_threads() -> None:
    made = databases(DatabaseSettings(control=PG, pool_size=0), DATA)
    assert "pool" not in made["default"]["OPTIONS"]
    assert made["default"]["CONN_MAX_AGE"] == 60


@pytest.mark.parametrize(
    "urls",
    [
        {"control": PG, "records": "postgresql://other/records"},
        {"control": PG, "records": "sqlite:////srv/r.db"},
        {"records": PG},
        {},
    ],
)
def test_two_databases_are_not_taken_for_one(urls: dict[str, Any]) -> None:
    assert not is_shared(databases(DatabaseSettings(**urls), DATA))


def test_the_same_database_named_twice_is_still_one() -> None:
    assert is_shared(databases(DatabaseSettings(control=PG, records=PG), DATA))


def test_records_are_read_and_written_through_their_own_connections() -> None:
    router = CollectorRouter()
    assert router.db_for_read(LogRecord) == router.db_for_write(LogRecord) == "records"
    assert router.db_for_read(Tenant) == router.db_for_write(Tenant) == "default"
    assert not router.allow_relation(Tenant(), LogRecord())


@pytest.mark.parametrize(
    ("shared", "alias", "app", "allowed"),
    [
        (False, "default", "control", True),
        (False, "default", "ingest", False),
        (False, "records", "ingest", True),
        (False, "records", "control", False),
        (True, "default", "control", True),
        (True, "default", "ingest", True),
        (True, "records", "ingest", False),
        (True, "records", "control", False),
    ],
)
def test_where_migrations_go(shared: bool, alias: str, app: str, allowed: bool) -> None:
    with override_settings(RECORDS_SHARE_DEFAULT=shared):
        assert CollectorRouter().allow_migrate(alias, app) is allowed


@pytest.mark.django_db
def test_the_suite_has_both_databases() -> None:
    assert Tenant.objects.filter(slug="default").exists()
    assert LogRecord.objects.count() == 0
