"""Connecting to PostgreSQL so that another thread can end it: a server may take a connection and
never say a word.

psycopg's own `connect` can be given up only by its timeout.  Like it, this tries the hosts of a
list one after the other, each for the whole timeout.  Keeps nothing.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator

import psycopg
from psycopg import conninfo as pg_conninfo
from psycopg import pq

LOOK_EVERY_S = 0.1

_OF_HOSTS = ("host", "hostaddr", "port")


class Interrupted(Exception):
    """Somebody asked to give up."""


def connect(
    conninfo: str, *, timeout_s: float, interrupted: Callable[[], bool]
) -> psycopg.Connection[tuple[object, ...]]:
    """A connection in autocommit that prepares no statements.

    Raises psycopg.OperationalError with the last host's failure, or Interrupted.
    """
    failure: psycopg.Error | None = None
    for attempt in _attempts(conninfo):
        try:
            connection = psycopg.Connection[tuple[object, ...]](
                _connect(attempt, timeout_s=timeout_s, interrupted=interrupted)
            )
        except psycopg.OperationalError as error:
            failure = error
            continue
        connection.autocommit = True
        # Statements come with their values inside, and may pass a pooler of transactions.
        connection.prepare_threshold = None
        return connection
    raise failure or psycopg.OperationalError("no host to connect to")


def _attempts(conninfo: str) -> Iterator[str]:
    """One conninfo for each host of a list, which libpq would share the timeout among."""
    params = pg_conninfo.conninfo_to_dict(conninfo)
    lists = {
        name: str(params[name]).split(",") for name in _OF_HOSTS if params.get(name) is not None
    }
    count = max((len(values) for values in lists.values()), default=1)
    for n in range(count):
        # A single port is that of every host.
        one = {name: values[n if len(values) > 1 else 0] for name, values in lists.items()}
        yield pg_conninfo.make_conninfo(conninfo, **one)


def _connect(conninfo: str, *, timeout_s: float, interrupted: Callable[[], bool]) -> pq.abc.PGconn:
    pgconn = pq.PGconn.connect_start(conninfo.encode())
    try:
        due = time.monotonic() + timeout_s
        while True:
            status = (
                pq.PollingStatus.FAILED
                if pgconn.status == pq.ConnStatus.BAD
                else pgconn.connect_poll()
            )
            if status == pq.PollingStatus.OK:
                break
            if status == pq.PollingStatus.FAILED:
                raise psycopg.OperationalError(f"connection failed: {pgconn.get_error_message()}")
            _wait(pgconn.socket, pq.PollingStatus(status), due=due, interrupted=interrupted)
        pgconn.nonblocking = 1
    except BaseException:
        pgconn.finish()
        raise
    return pgconn


def _wait(
    fd: int, status: pq.PollingStatus, *, due: float, interrupted: Callable[[], bool]
) -> None:
    ready = select.poll()
    ready.register(fd, select.POLLIN if status == pq.PollingStatus.READING else select.POLLOUT)
    while not interrupted():
        left = due - time.monotonic()
        if left <= 0:
            raise psycopg.errors.ConnectionTimeout("connection timeout expired")
        if ready.poll(min(left, LOOK_EVERY_S) * 1000):
            return
    raise Interrupted
