"""Dead letters in a process: imports, redrives, figures and retention, all begun by the heart.

Starts before the engine's service and stops after it, so that what the engine tells at its end of
the chunks it was given is still written down.  `_lock` guards what a start made.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from django.conf import settings
from django.db import Error as DatabaseProblem

from control.processes import heart
from control.processes.identity import current_identity
from sinks.deadletters import box, retention
from sinks.deadletters.importer import import_spool
from sinks.deadletters.metrics import INTERVAL_S as FIGURES_INTERVAL_S
from sinks.deadletters.metrics import metrics
from sinks.deadletters.runner import Redriver, Runner
from sinks.deadletters.store import own_connection

logger = logging.getLogger(__name__)

ORDER = 45
IMPORT_INTERVAL_S, LOOK_INTERVAL_S = 5.0, 1.0
IMPORT, LOOK, FIGURES, RETENTION = (
    "dead-letters-import", "dead-letters-redrive", "dead-letters-figures", "dead-letters-retention",
)  # fmt: skip
ROLES_WITHOUT = frozenset({"command", "jobs"})


class DeadLetterService:
    name = "dead-letters"
    order = ORDER

    def __init__(self, *, engine: Callable[[], Redriver | None] | None = None) -> None:
        self._engine: Callable[[], Redriver | None] = engine or _engine
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._runner: Runner | None = None
        self._importing: threading.Thread | None = None
        self._stopping = threading.Event()

    def start(self, role: str) -> None:
        if role in ROLES_WITHOUT:
            return
        with self._lock:
            if self._runner is not None:
                return
            identity = current_identity()
            owner = str(identity.id if identity is not None else uuid.uuid4())
            self._runner = runner = Runner(owner=owner, engine=self._engine, now=_now)
            self._stopping.clear()
        heart.every(IMPORT, IMPORT_INTERVAL_S, self.begin_import, database=False)
        heart.every(LOOK, LOOK_INTERVAL_S, runner.look)
        heart.every(FIGURES, FIGURES_INTERVAL_S, metrics().refresh)
        heart.every(RETENTION, retention.INTERVAL_S, _forget)

    def stop(self, deadline_s: float) -> None:
        with self._lock:
            runner, self._runner = self._runner, None
            importing = self._importing
        if runner is None:
            return
        self._stopping.set()
        for task in (IMPORT, LOOK, FIGURES, RETENTION):
            heart.heart().forget(task)
        if not runner.stop(deadline_s):
            logger.warning("a redrive is still being written down; another process goes on with it")
        if importing is not None:
            importing.join(deadline_s)
        box.spool().seal()

    def after_fork(self) -> None:
        """The parent's threads are not here."""
        self._reset()

    def begin_import(self) -> None:
        """Import the spool on a thread of its own: it may be long."""
        if not box.spool().files():
            return
        with self._lock:
            if self._importing is not None or self._stopping.is_set():
                return
            self._importing = threading.Thread(
                target=self._import, name="dead-letters-import", daemon=True
            )
            self._importing.start()

    def _import(self) -> None:
        try:
            with own_connection():
                import_spool(box.spool(), stopping=self._stopping.is_set)
        except DatabaseProblem as error:
            logger.debug("the spool waits for the control database: %s", type(error).__name__)
        except Exception:
            logger.exception("the spool could not be imported; it will be tried again")
        finally:
            with self._lock:
                self._importing = None


def _engine() -> Redriver | None:
    from sinks.service import current

    service = current()
    return service.engine if service.running else None


def _now() -> datetime:
    return datetime.now(UTC)


def _forget() -> None:
    # Few chunks a beat, as the heart has other things to do; the next hour goes on.
    retention.forget_old(_now(), days=settings.COLLECTOR.retention.dead_letters_days, chunks=20)


_service = DeadLetterService()


def current_service() -> DeadLetterService:
    """This process's service."""
    return _service
