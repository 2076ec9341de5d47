"""What other processes ask of this one: claimed and answered by the heart, run on threads.

`_lock` guards the finished answers, which wait there until the database has taken them. A
request is claimed by a conditional update, so that it runs once even if two threads saw it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import InterfaceError, OperationalError, connections, transaction

from control.ports.requests import request_handler, request_kinds
from control.processes.identity import plain
from control.processes.models import ProcessRequest

logger = logging.getLogger(__name__)

MAX_RUNNING = 8


class RequestDesk:
    def __init__(
        self, *, process_id: UUID, now: Callable[[], datetime], finished: Callable[[], None]
    ) -> None:
        """`finished` is called on the handler's thread when an answer waits to be written."""
        self._process_id = process_id
        self._now = now
        self._finished = finished
        self._lock = threading.Lock()
        self._running = 0
        self._answers: dict[int, tuple[datetime, Any]] = {}

    def claim(self) -> None:
        """Start what is asked of this process."""
        mine = ProcessRequest.objects.filter(process_id=self._process_id, claimed_at=None)
        for request in mine.order_by("id")[: self._room()]:
            claimed = ProcessRequest.objects.filter(pk=request.pk, claimed_at=None).update(
                claimed_at=self._now()
            )
            if claimed:
                self._start(request)

    @property
    def waiting(self) -> bool:
        """Whether answers wait to be written."""
        with self._lock:
            return bool(self._answers)

    def answer(self) -> None:
        """Write the answers that wait; one that the database refuses is replaced by its error."""
        with self._lock:
            answers = dict(self._answers)
        for pk, (at, result) in answers.items():
            try:
                self._write(pk, at, result)
            except (OperationalError, InterfaceError):
                raise  # the database is away: all wait on
            except Exception as error:
                logger.exception("answer not stored", extra={"request": pk})
                refused = f"the answer could not be stored: {type(error).__name__}"
                self._write(pk, at, {"error": refused})
            with self._lock:
                del self._answers[pk]

    @staticmethod
    def _write(pk: int, at: datetime, result: Any) -> None:
        # In a transaction of its own, which a refusal ends and nothing else.
        with transaction.atomic():
            ProcessRequest.objects.filter(pk=pk).update(finished_at=at, result=result)

    def refuse_all(self, reason: str) -> None:
        """Answer what is still open: this process is about to end."""
        ProcessRequest.objects.filter(process_id=self._process_id, finished_at=None).update(
            finished_at=self._now(), result={"error": reason}
        )

    def _room(self) -> int:
        with self._lock:
            return max(0, MAX_RUNNING - self._running)

    def _start(self, request: ProcessRequest) -> None:
        with self._lock:
            self._running += 1
        threading.Thread(
            target=self._run, args=(request,), name=f"control-request-{request.kind}", daemon=True
        ).start()

    def _run(self, request: ProcessRequest) -> None:
        try:
            result = self._handle(request)
        finally:
            connections.close_all()
        with self._lock:
            self._running -= 1
            self._answers[request.pk] = (self._now(), result)
        self._finished()

    def _handle(self, request: ProcessRequest) -> Any:
        handler = request_handler(request.kind)
        if handler is None:
            known = ", ".join(request_kinds()) or "nothing"
            return {"error": f"this process cannot {request.kind!r}; it can: {known}"}
        try:
            return plain(handler(dict(request.args)))
        except Exception as error:
            logger.exception("request failed", extra={"kind": request.kind})
            return {"error": f"{type(error).__name__}: {error}"[:1000]}
