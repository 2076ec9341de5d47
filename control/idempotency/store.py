"""The desk's connection: one round of jobs in one transaction, cut at its socket when it hangs.

`run` and `close` belong to the desk's thread, `cut` to any other.  `_lock` guards which connection
is in use.
"""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import InterfaceError, OperationalError, connections, transaction

from control.idempotency.claims import Outcome, Wanted, claim_all, finish_all, release_all

ALIAS = "default"


@dataclass(slots=True, kw_only=True)
class Round:
    """What is done in one transaction."""

    wanted: list[Wanted] = field(default_factory=list)
    finished: list[tuple[UUID, str | None]] = field(default_factory=list)
    released: list[tuple[UUID, bool]] = field(default_factory=list)


class Store:
    """The claims' table, by a connection of the desk's own."""

    def __init__(self, *, keep_for: timedelta) -> None:
        self._keep_for = keep_for
        self._lock = threading.Lock()
        self._raw: Any = None

    def run(self, round: Round, now: datetime) -> list[Outcome]:
        """Do all of it, or raise and have done nothing.

        Tried twice: a connection that was open already may have died unnoticed, and all of it
        may be done twice without harm.
        """
        connection = connections[ALIAS]
        if connection.connection is not None:
            try:
                return self._once(round, now)
            except (OperationalError, InterfaceError):
                self.close()
        try:
            return self._once(round, now)
        except BaseException:
            self.close()
            raise

    def _once(self, round: Round, now: datetime) -> list[Outcome]:
        connection = connections[ALIAS]
        connection.ensure_connection()
        with self._lock:
            self._raw = connection.connection
        try:
            with transaction.atomic(using=ALIAS):
                outcomes = claim_all(round.wanted, now=now, keep_for=self._keep_for)
                finish_all(round.finished)
                release_all(round.released)
                if not (round.wanted or round.finished or round.released):
                    with connection.cursor() as cursor:
                        cursor.execute("SELECT 1")
                return outcomes
        finally:
            with self._lock:
                self._raw = None

    def close(self) -> None:
        connections[ALIAS].close()

    def cut(self) -> None:
        """End a round that hangs: its thread gets an error.  SQLite ends its waits by itself."""
        with self._lock:
            fileno = getattr(self._raw, "fileno", None)
            if fileno is None:
                return
            # Closing the connection here would free what its thread is using.
            try:
                with socket.socket(fileno=os.dup(fileno())) as peer:
                    peer.shutdown(socket.SHUT_RDWR)
            except Exception:  # noqa: S110 - it ended by itself
                pass
