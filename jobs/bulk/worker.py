"""Carrying bulk actions out: one thread of a process, one action after another.

`look` is called by the heart and begins the thread where there is something to do; the thread ends
when there is nothing.  `_lock` guards the thread; the database is asked without it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime

from django.db import Error as DatabaseProblem
from django.db import connection

from jobs.bulk import tasks
from jobs.bulk.tasks import Changer, Fenced, Held

logger = logging.getLogger(__name__)


class BulkWorker:
    """`store` gives the process's Store; `process` names the process in the rows."""

    def __init__(
        self, *, process: str, store: Callable[[], Changer], now: Callable[[], datetime]
    ) -> None:
        self._process = process
        self._store = store
        self._now = now
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def look(self) -> None:
        """Begin the thread if an action waits and none runs here."""
        if self._stopping.is_set() or self._running() or not tasks.waiting():
            return
        with self._lock:
            if self._thread is not None or self._stopping.is_set():
                return
            self._thread = threading.Thread(target=self._run, name="jobs-bulk-actions", daemon=True)
            self._thread.start()

    def stop(self, deadline_s: float) -> bool:
        """Begin no further batch; True when the one under way has ended."""
        self._stopping.set()
        with self._lock:
            thread = self._thread
        if thread is None:
            return True
        thread.join(deadline_s)
        return not thread.is_alive()

    def join(self, timeout_s: float) -> bool:
        """Wait until there is nothing more to do here."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
            return not thread.is_alive()
        return True

    def _running(self) -> bool:
        with self._lock:
            return self._thread is not None

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                held = tasks.claim(self._process, now=self._now())
                if held is None:
                    return
                self.carry_out(held)
        except DatabaseProblem as error:
            logger.warning("bulk actions wait for the database: %s", type(error).__name__)
        except Exception:
            logger.exception("bulk actions failed; they are taken up again")
        finally:
            connection.close()
            with self._lock:
                self._thread = None

    def carry_out(self, held: Held) -> None:
        """Go on with one action until it has ended, or this process stops."""
        try:
            tasks.count(held)
            while tasks.step(held, self._store(), now=self._now()):
                if self._stopping.is_set():
                    tasks.release(held)
                    return
        except Fenced:
            return
        except Exception as error:
            # Left to the lease, so that what fails at once is not tried without a pause.
            logger.exception("bulk action %d failed and is tried again", held.pk)
            tasks.release(held, error=f"{type(error).__name__}: {error}", now=self._now())
