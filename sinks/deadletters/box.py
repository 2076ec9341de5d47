"""Where the pipelines put dead letters: the control database, through the spool when it is away.

Called by the engine's worker threads.  `_lock` guards until when the database is left in peace.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from django.conf import settings
from django.db import Error as DatabaseProblem

from pipeline import deadletter
from pipeline.deadletter import DeadLetterBox
from pipeline.runtime.clock import Clock, SystemClock
from sinks.deadletters import store
from sinks.deadletters.ndjson import FileBox
from sinks.deadletters.spool import Spool

logger = logging.getLogger(__name__)

# So long no worker asks a database that has not answered: each would wait for its own timeout.
LEFT_IN_PEACE_S = 5.0

Keep = Callable[[Sequence[deadletter.DeadLetter]], int]


class DatabaseBox:
    """The box of every sink that is not set otherwise."""

    def __init__(self, *, spool: Spool, clock: Clock | None = None, keep: Keep = store.keep):
        self._spool = spool
        self._clock = clock or SystemClock()
        self._keep = keep
        self._lock = threading.Lock()
        self._ask_again_at = 0.0

    def put(self, letters: Sequence[deadletter.DeadLetter]) -> None:
        """Keep the letters.  Raises OSError when neither the database nor the spool takes them."""
        if not letters:
            return
        with self._lock:
            ask = self._clock.monotonic() >= self._ask_again_at
        if ask:
            try:
                with store.own_connection():
                    self._keep(letters)
                return
            except DatabaseProblem as error:
                with self._lock:
                    self._ask_again_at = self._clock.monotonic() + LEFT_IN_PEACE_S
                # Only the kind: the driver's text may carry the address and the user.
                logger.warning(
                    "the control database did not take dead letters; they go to the spool",
                    extra={"letters": len(letters), "error": type(error).__name__},
                )
        self._spool.append(letters)


class _Rooms:
    """The boxes of this process, by data directory; made on first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spools: dict[Path, Spool] = {}
        self._boxes: dict[Path, DatabaseBox] = {}
        self._files: dict[Path, FileBox] = {}

    def spool(self) -> Spool:
        base = directory()
        with self._lock:
            return self._spools.setdefault(base, Spool(base / "spool"))

    def database(self) -> DatabaseBox:
        base, spool = directory(), self.spool()
        with self._lock:
            return self._boxes.setdefault(base, DatabaseBox(spool=spool))

    def file(self, sink: str, sink_name: str) -> FileBox:
        made = FileBox(directory=directory(), sink=sink, sink_name=sink_name)
        with self._lock:
            return self._files.setdefault(made.path, made)

    def after_fork(self) -> None:
        spools = list(self._spools.values())
        self.__init__()  # type: ignore[misc]
        for spool in spools:
            spool.after_fork()


def directory() -> Path:
    """Where this installation keeps files of dead letters."""
    return Path(settings.COLLECTOR.server.data_dir) / "deadletters"


_rooms = _Rooms()
os.register_at_fork(after_in_child=_rooms.after_fork)


def spool() -> Spool:
    """This process's spool."""
    return _rooms.spool()


def box_for(sink: str, sink_name: str, place: str) -> DeadLetterBox:
    """The box of a sink: `place` is `database` or `file`."""
    return _rooms.file(sink, sink_name) if place == "file" else _rooms.database()
