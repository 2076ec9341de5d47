"""Wake-ups: something was committed that may concern runners.  Never the truth, only sooner.

On PostgreSQL a connection of its own LISTENs on `collector_jobs`; on SQLite a connection looks at
`PRAGMA data_version`, which changes when anybody else commits, every LOOK_S.  The thread
"jobs-waker" does nothing else; when its connection fails, polling goes on without it and it tries
again after RETRY_S.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from django.db import connections

from control.databases.causes import cause_of

logger = logging.getLogger(__name__)

ALIAS = "default"
CHANNEL = "collector_jobs"
LOOK_S = 0.03
RETRY_S = 5.0
# How long one wait for a notification takes at most, so that a stop is noticed.
WAIT_S = 0.5


class Waker:
    def __init__(self, *, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing = ""

    def start(self) -> None:
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="jobs-waker", daemon=True)
            self._thread.start()

    def stop(self, deadline_s: float) -> bool:
        thread, self._thread = self._thread, None
        self._stopping.set()
        if thread is not None:
            thread.join(deadline_s)
        return thread is None or not thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if connections[ALIAS].vendor == "postgresql":
                    self._listen()
                else:
                    self._look()
            except Exception as error:
                words = cause_of(error)
                if words != self._failing:
                    self._failing = words
                    logger.warning(
                        "nobody tells of new jobs; they are looked for", extra={"cause": words}
                    )
                self._stopping.wait(RETRY_S)
            finally:
                connections.close_all()

    def _listen(self) -> None:
        import psycopg

        # Not from the pool: it would be given on while it listens.
        wrapper: Any = connections[ALIAS]
        parameters = wrapper.get_connection_params_without_pool()
        with psycopg.connect(**{**parameters, "autocommit": True}) as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            self._failing = ""
            self._wake()  # for what came before
            while not self._stopping.is_set():
                told = False
                for _ in connection.notifies(timeout=WAIT_S, stop_after=1):
                    told = True
                if told:
                    self._wake()

    def _look(self) -> None:
        seen: Any = None
        with connections[ALIAS].cursor() as cursor:
            while not self._stopping.wait(LOOK_S):
                version = cursor.execute("PRAGMA data_version").fetchone()
                if version != seen:
                    seen = version
                    self._failing = ""
                    self._wake()
