"""Fixtures of the control plane's tests: fresh keys and ports, a PostgreSQL as an extra alias.

Imports of ours stand inside: this file is read before Django is set up.
"""

from __future__ import annotations

from collections.abc import Iterator
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


@pytest.fixture
def pg_alias(postgres_dsn: str, django_db_blocker: Any) -> Iterator[str]:
    """A database of the test's own on a real PostgreSQL, as an alias of Django's."""
    alias = "control_pg"
    parts = conninfo_to_dict(postgres_dsn)
    base = connections.databases["default"]
    connections.databases[alias] = {
        **base,
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts["dbname"],
        "USER": parts.get("user", ""),
        "PASSWORD": parts.get("password", ""),
        "HOST": parts.get("host", ""),
        "PORT": str(parts.get("port", "")),
        "OPTIONS": {},
        "CONN_MAX_AGE": 0,
        "TEST": {**base["TEST"]},
    }
    with django_db_blocker.unblock():
        yield alias
        connections[alias].close()
    del connections[alias]
    del connections.databases[alias]
