"""What a dead checker on this machine had logged, before its targets are taken over.

Its flips must be in the database when their targets' states are read, or they would be found a
second time.  On another machine its log is adopted there; what it says is sorted out by epochs.
Runs on the keeper's thread, which must not be held up for long.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from healthmon.leases.models import Checker
from pipeline.engine import Engine
from pipeline.runtime.clock import Clock

logger = logging.getLogger(__name__)

LOOK_AGAIN_S = 0.05


class FormerLogs:
    """Waits no longer than `wait_s`, which must be well under a third of a lease."""

    def __init__(
        self,
        *,
        own_id: str,
        engine: Callable[[], Engine],
        wal: Path,
        clock: Clock,
        wait_s: float,
        host: str = "",
    ) -> None:
        self._own_id = own_id
        self._engine = engine
        self._wal = wal
        self._clock = clock
        self._wait_s = wait_s
        self._host = host or socket.gethostname()
        self._pause = threading.Event()
        # Checkers whose end was dealt with: a slot may come back to us many times after it.
        self._done = {own_id}

    def deliver(self, former: Mapping[int, str]) -> None:
        """Adopt the logs of those checkers that are dead, and wait a little for their delivery."""
        holders = {holder for holder in former.values() if holder} - self._done
        gone = [one for one in Checker.objects.filter(pk__in=holders) if self._is_dead(one)]
        self._done |= {one.pk for one in gone}
        left = {one.log_id for one in gone if one.log_id and self._is_here(one.log_id)}
        if not left:
            return
        adoption = self._engine().adoption
        if adoption is not None:
            adoption.look()
        until = self._clock.monotonic() + self._wait_s
        while left and self._clock.monotonic() < until:
            left = {log_id for log_id in left if self._is_here(log_id) and self._is_owed(log_id)}
            if left:
                self._pause.wait(LOOK_AGAIN_S)
        if left:
            logger.info(
                "a checker's log is delivered while its targets are probed already",
                extra={"logs": sorted(left)},
            )

    def _is_dead(self, checker: Checker) -> bool:
        """Whether it ran on this machine and does no longer; one that is frozen has its log."""
        if checker.host != self._host or not checker.pid:
            return False
        try:
            os.kill(checker.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False

    def _is_here(self, log_id: str) -> bool:
        return (self._wal / log_id).is_dir()

    def _is_owed(self, log_id: str) -> bool:
        """Whether that log still has records for a sink; one that another process reads has."""
        log: Any = self._engine().stats()["log"]
        adopted = log.get("adopted", [])
        return all(one["log_id"] != log_id or one["left_records"] for one in adopted)
