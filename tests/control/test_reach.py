"""Databases that come and go: who may try, why it failed, and what is ended when one stalls."""

from __future__ import annotations

import socket
import threading

import pytest
from django.db import (
    DatabaseError,
    DataError,
    InternalError,
    OperationalError,
    ProgrammingError,
)
from psycopg import errors

from control.databases.causes import NOT_PREPARED, cause_of, is_loss
from control.databases.reach import RETRY_S, Reach, as_the_prober
from control.processes.stalls import STALLED_AFTER_S, StallWatch


class Away(Exception):
    pass


class Database:
    def __init__(self) -> None:
        self.now = 0.0
        self.tries = 0
        self.away = True
        self.reach = Reach(monotonic=lambda: self.now)

    def connect(self) -> str:
        self.tries += 1
        if self.away:
            raise Away("Connection refused")
        return "connected"

    def attempt(self) -> str:
        return self.reach.attempt(self.connect, error=Away, name="control")


def test_while_it_is_away_only_one_try_is_made_after_a_pause() -> None:
    database = Database()
    for _ in range(5):
        with pytest.raises(Away, match=r"refused|nothing listens"):
            database.attempt()
    assert database.tries == 1
    assert database.reach.cause == "nothing listens at its address"
    database.now += RETRY_S
    database.away = False
    assert database.attempt() == "connected"
    assert database.reach.cause == ""


def test_where_one_thread_tries_the_others_never_do() -> None:
    database = Database()
    with pytest.raises(Away):
        database.attempt()
    told: list[Exception] = []

    def elsewhere() -> None:
        try:
            database.attempt()
        except Away as error:
            told.append(error)

    with as_the_prober():
        database.now += 100
        other = threading.Thread(target=elsewhere)
        other.start()
        other.join(180)
        assert database.tries == 1
        assert "the control database is away" in str(told[0])
        database.away = False
        assert database.attempt() == "connected"


def test_one_refusal_of_a_database_in_use_is_a_doubt_first() -> None:
    database = Database()
    database.away = False
    database.attempt()
    database.away = True
    with pytest.raises(Away):
        database.attempt()
    assert (database.reach.cause, database.reach.proven) == ("", False)
    with pytest.raises(Away):
        database.attempt()
    assert database.reach.cause


@pytest.mark.parametrize(("answers", "cut"), [("it does not answer", True), ("", False)])
def test_only_a_database_that_answers_nobody_has_its_connections_ended(
    answers: str, cut: bool
) -> None:
    from control.databases.reach import reach_of

    alias = f"stalled-{cut}"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reach_of(alias).hold(ours)
        watch = StallWatch(busy=lambda: (alias, STALLED_AFTER_S), ask=lambda _: answers)
        assert watch.look() is cut
        theirs.setblocking(False)
        if cut:
            assert theirs.recv(1) == b""
            assert reach_of(alias).cause == answers
        else:
            with pytest.raises(BlockingIOError):
                theirs.recv(1)


def test_what_waits_for_a_moment_is_left_alone() -> None:
    watch = StallWatch(busy=lambda: ("default", STALLED_AFTER_S - 1), ask=lambda _: "away")
    assert not watch.look()


@pytest.mark.parametrize(
    ("error", "cause", "loss"),
    [
        (OperationalError("connection to 10.0.0.7 failed: Connection refused"),
         "nothing listens at its address", True),
        (OperationalError('password authentication failed for user "joe"'),
         "it refuses the user or the password", True),
        (DatabaseError("file is not a database"), "its file is damaged", True),
        (OperationalError("no such table: x"), NOT_PREPARED, True),
        (OperationalError("database or disk is full"), "its disk is full", True),
        (OperationalError("attempt to write a readonly database"),
         "its file cannot be written", True),
        (OperationalError("connection is bad: no error details available"),
         "it cannot be reached", True),
        (OperationalError("the connection is closed"), "it closed the connection", True),
        (ProgrammingError("syntax error"), "ProgrammingError", False),
        (DatabaseError("value too long"), "DatabaseError", False),
    ],
)  # fmt: skip
def test_causes_are_words_without_addresses(error: Exception, cause: str, loss: bool) -> None:
    assert (cause_of(error), is_loss(error)) == (cause, loss)


@pytest.mark.parametrize(
    ("kind", "driver", "cause", "loss"),
    [
        (InternalError, errors.ReadOnlySqlTransaction, "it takes no writes for now", True),
        (InternalError, errors.IdleInTransactionSessionTimeout, "it closed the connection", True),
        (InternalError, errors.DataCorrupted, "its data are damaged", True),
        (OperationalError, errors.DiskFull, "its disk is full", True),
        (OperationalError, errors.OutOfMemory, "it is out of memory", True),
        (OperationalError, errors.AdminShutdown, "it is being shut down", True),
        (OperationalError, errors.CannotConnectNow, "it is starting up or shutting down", True),
        (OperationalError, errors.IoError, "its disk does not work", True),
        (OperationalError, errors.ConnectionFailure, "it closed the connection", True),
        (OperationalError, errors.SerializationFailure, "it is busy", True),
        (OperationalError, errors.DeadlockDetected, "it is busy", True),
        (OperationalError, errors.LockNotAvailable, "it is busy", True),
        (OperationalError, errors.QueryCanceled, "it does not answer in time", True),
        # What would be refused for ever, whoever asks.
        (OperationalError, errors.ProgramLimitExceeded, "OperationalError", False),
        (InternalError, errors.InFailedSqlTransaction, "InternalError", False),
        (DataError, errors.NumericValueOutOfRange, "DataError", False),
        (ProgrammingError, errors.InsufficientPrivilege, "ProgrammingError", False),
    ],
)  # fmt: skip
def test_what_postgresql_says_is_a_loss_or_the_statements_own(
    kind: type[Exception], driver: type[Exception], cause: str, loss: bool
) -> None:
    error = kind("x")
    error.__cause__ = driver("x")
    assert (cause_of(error), is_loss(error)) == (cause, loss)
