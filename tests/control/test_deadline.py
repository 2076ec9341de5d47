"""A PostgreSQL that falls silent, behind a proxy that says nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction
from psycopg.conninfo import conninfo_to_dict

from control.databases.deadline import answered_within
from tests.servers.proxy import Proxy, postgres_proxy

ALIAS = "silent"
SOON_S = 0.3


@pytest.fixture
def proxy(postgres_dsn: str, django_db_blocker: Any) -> Iterator[Proxy]:
    """Between this thread's connection `silent` and the server."""
    with postgres_proxy(postgres_dsn) as (through, proxy), django_db_blocker.unblock():
        parts = conninfo_to_dict(through)
        connections.databases[ALIAS] = {
            **connections.databases["default"],
            "ENGINE": "control.databases.postgresql",
            "NAME": parts["dbname"],
            "USER": parts["user"],
            "PASSWORD": parts.get("password", ""),
            "HOST": "127.0.0.1",
            "PORT": str(proxy.port),
            "OPTIONS": {"connect_timeout": 3},
        }
        try:
            yield proxy
        finally:
            connections[ALIAS].close()
            del connections[ALIAS]
            del connections.databases[ALIAS]


def ask() -> object:
    with connections[ALIAS].cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone()


def test_a_connection_that_goes_silent_is_given_up(
    proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    assert ask() == (1,)
    proxy.half_close("server")
    with pytest.raises(OperationalError), answered_within(SOON_S, alias=ALIAS):
        ask()
    assert "did not answer in time" in caplog.text
    connections[ALIAS].close_if_unusable_or_obsolete()
    with answered_within(60, alias=ALIAS):
        assert ask() == (1,)


def test_a_commit_that_is_not_answered_is_given_up(proxy: Proxy) -> None:
    def commit() -> None:
        with answered_within(SOON_S, alias=ALIAS), transaction.atomic(using=ALIAS):
            ask()
            proxy.stall()

    with pytest.raises(OperationalError):
        commit()
    proxy.heal()
    connections[ALIAS].close_if_unusable_or_obsolete()
    assert ask() == (1,)


def test_the_time_is_counted_anew_for_a_second_connection(proxy: Proxy) -> None:
    with answered_within(SOON_S, alias=ALIAS):
        for _ in range(2):
            assert ask() == (1,)
            proxy.half_close("server")
            with pytest.raises(OperationalError):
                ask()
            connections[ALIAS].close()


def test_after_the_block_nothing_is_cut(proxy: Proxy) -> None:
    with answered_within(0.05, alias=ALIAS):
        ask()
    with connections[ALIAS].cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.3)")
    assert ask() == (1,)


def test_what_needs_no_deadline_has_none() -> None:
    with answered_within(0.0):
        pass
