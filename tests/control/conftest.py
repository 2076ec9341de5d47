"""Fixtures of the control plane's tests: fresh keys and ports, a PostgreSQL as an extra alias.

Imports of ours stand inside: this file is read before Django is set up.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from psycopg.conninfo import conninfo_to_dict


@pytest.fixture(autouse=True)
def fresh_keys() -> Iterator[None]:
    """Keys of a test that was rolled back are not the next one's."""
    from control.auth.keys import keyring

    keyring().invalidate()
    yield
    keyring().take_used()
    keyring().invalidate()


@pytest.fixture
def no_stats() -> Iterator[None]:
    """The stats port empty, and put back afterwards."""
    from control.ports import stats as stats_port

    before = stats_port._source
    stats_port.register_stats(None)
    yield
    stats_port.register_stats(before)


def _with_alias(alias: str, blocker: Any, **changes: Any) -> Iterator[str]:
    base = connections.databases["default"]
    connections.databases[alias] = {
        **base,
        "USER": "",
        "PASSWORD": "",
        "HOST": "",
        "PORT": "",
        "OPTIONS": {},
        "CONN_MAX_AGE": 0,
        "TEST": {**base["TEST"]},
        **changes,
    }
    with blocker.unblock():
        yield alias
        connections[alias].close()
    del connections[alias]
    del connections.databases[alias]


@pytest.fixture
def pg_alias(postgres_dsn: str, django_db_blocker: Any) -> Iterator[str]:
    """A database of the test's own on a real PostgreSQL, as an alias of Django's."""
    parts = conninfo_to_dict(postgres_dsn)
    yield from _with_alias(
        "control_pg",
        django_db_blocker,
        ENGINE="django.db.backends.postgresql",
        NAME=parts["dbname"],
        USER=parts.get("user", ""),
        PASSWORD=parts.get("password", ""),
        HOST=parts.get("host", ""),
        PORT=str(parts.get("port", "")),
    )


@pytest.fixture
def sqlite_alias(tmp_path: Path, django_db_blocker: Any) -> Iterator[str]:
    """An SQLite file of the test's own, as an alias of Django's."""
    yield from _with_alias(
        "control_sqlite",
        django_db_blocker,
        ENGINE="django.db.backends.sqlite3",
        NAME=str(tmp_path / "own.sqlite3"),
    )
