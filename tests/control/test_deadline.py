"""A PostgreSQL that falls silent, behind a proxy that says nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction
from psycopg.conninfo import conninfo_to_dict

from control.databases.deadline import Watch, answered_within
from tests.servers.collector import GENEROUS_S
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


@pytest.fixture
def pooled(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """`proxy`, with connections that are lent by a pool of three."""
    monkeypatch.setattr("control.databases.postgresql.base.CHECK_S", SOON_S)
    settings = connections.databases[ALIAS]
    settings["CONN_MAX_AGE"], settings["CONN_HEALTH_CHECKS"] = 0, False
    settings["OPTIONS"]["pool"] = {"min_size": 0, "max_size": 3, "timeout": 5}
    yield proxy
    connections[ALIAS].close()
    connections[ALIAS].close_pool()  # type: ignore[attr-defined]  # PostgreSQL has one


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
    def given_up_twice(seconds: float) -> bool:
        with answered_within(seconds, alias=ALIAS):
            for _ in range(2):
                try:
                    ask()
                except OperationalError:
                    connections[ALIAS].close()
                    return False
                proxy.half_close("server")
                with pytest.raises(OperationalError):
                    ask()
                connections[ALIAS].close()
        return True

    # A busy machine may need longer for an answer that does come.
    assert any(given_up_twice(seconds) for seconds in (SOON_S, 10 * SOON_S, 100 * SOON_S))


def test_what_fell_silent_in_the_pool_is_found_out(pooled: Proxy) -> None:
    """By everybody, without a deadline of their own; one wait is enough for all that lay there."""
    others = [connections.create_connection(ALIAS) for _ in range(3)]
    for one in others:
        one.inc_thread_sharing()
        one.ensure_connection()
    for one in others:
        one.close()
    assert pooled.connections == 3
    pooled.half_close("server")
    assert ask() == (1,)
    assert pooled.struck == 3
    connections[ALIAS].close()
    assert ask() == (1,)


def test_what_the_server_has_closed_in_the_pool_is_found_out(pooled: Proxy) -> None:
    assert ask() == (1,)
    connections[ALIAS].close()
    pooled.cut()
    pooled.heal()
    assert ask() == (1,)


def test_after_the_block_nothing_is_cut(proxy: Proxy) -> None:
    with Watch(lambda: connections[ALIAS].connection, seconds=GENEROUS_S, name=ALIAS) as watch:
        ask()
    watch._cut()  # as the thread that keeps the time does when it comes too late
    assert ask() == (1,)
    assert not watch.has_cut


def test_what_needs_no_deadline_has_none() -> None:
    with answered_within(0.0):
        pass
