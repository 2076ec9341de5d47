"""The keeper: one thread that does for an engine's logs what no request and no worker waits for.

It writes frames that were acknowledged from memory, makes the next segment file ahead, writes the
journal's rest, checkpoints a log when that frees files, and has optional sinks let go of the oldest
file before the log is full for the required ones.  `turn` may be called by tests without
the thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from pipeline.log.log import Log
from pipeline.runtime.clock import Clock

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.2


class Keeper:
    """Looks after the logs that `logs` tells, the process's own first."""

    def __init__(
        self,
        *,
        own: Log,
        logs: Callable[[], Sequence[Log]],
        relieve: Callable[[int], None],
        clock: Clock,
    ) -> None:
        self._own = own
        self._logs = logs
        self._relieve = relieve
        self._clock = clock
        self._lock = threading.Lock()  # guards the two that follow
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._complained = False
        self._synced_at = clock.monotonic()
        writer = own.files.writer if own.files is not None else None
        self._writer = writer
        self._wake = writer.unwritten if writer is not None else threading.Event()

    @property
    def running(self) -> bool:
        return self._thread is not None and not self._stopping

    def start(self) -> None:
        with self._lock:
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._run, name="log-keeper", daemon=True)
                self._thread.start()

    def stop(self, timeout_s: float | None) -> None:
        with self._lock:
            self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(LOOK_EVERY_S)
            try:
                self.turn()
                self._complained = False
            except OSError as error:
                if not self._complained:
                    log.error("the log's files cannot be looked after: %s", error)
                self._complained = True
            except Exception:
                log.exception("the log's files cannot be looked after")

    def turn(self) -> None:
        """Do what is due.  Raises OSError."""
        writer = self._writer
        if writer is not None:
            writer.write_queued()
            writer.prepare()
            now = self._clock.monotonic()
            if now - self._synced_at >= writer.sync_every_s:
                self._synced_at = now
                writer.sync()
        if self._own.files is not None and (file := self._own.files.crowded()) is not None:
            self._relieve(file)
        for journal in self._logs():
            files = journal.files
            if files is None:
                continue
            journal.note_passed()
            if files.wants_checkpoint:
                journal.checkpoint()
            elif files.journal.waiting:
                journal.commit(sync=False)
