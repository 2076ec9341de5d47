"""Where the pipelines put dead letters: the control database, through the spool when it is away.

Called by the engine's worker threads.  `_lock` guards until when the database is left in
peace, and what waits; `_turn` is held by the one that writes, and taken first.
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
# To open a file and to read its schema anew takes as long as to write some letters.
REUSED_S = 5.0

Keep = Callable[[Sequence[deadletter.DeadLetter]], int]


class _Waiting:
    """What one worker wants kept."""

    __slots__ = ("kept", "letters")

    def __init__(self, letters: Sequence[deadletter.DeadLetter]) -> None:
        self.letters = letters
        self.kept = False


class DatabaseBox:
    """The box of every sink that is not set otherwise."""

    def __init__(self, *, spool: Spool, clock: Clock | None = None, keep: Keep = store.keep):
        self._spool = spool
        self._clock = clock or SystemClock()
        self._keep = keep
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._ask_again_at = 0.0

    def put(self, letters: Sequence[deadletter.DeadLetter]) -> None:
        """Keep the letters.  Raises OSError when neither the database nor the spool takes them."""
        if not letters:
            return
        if self._is_asked():
            try:
                if self._keep_together(_Waiting(letters)):
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

    def _is_asked(self) -> bool:
        with self._lock:
            return self._clock.monotonic() >= self._ask_again_at

    def _keep_together(self, mine: _Waiting) -> bool:
        """Keep the letters in one transaction with those of other workers that wait for a turn.

        Returns whether they are kept: not when the database has failed another meanwhile.
        """
        with self._lock:
            self._waiting.append(mine)
        with self._turn:
            with self._lock:
                if mine.kept:
                    return True
                # Taken already, and not kept: they failed together, so each is tried by itself.
                together = [mine]
                if mine in self._waiting:
                    together, self._waiting = self._waiting, []
            if not self._is_asked():
                return False
            with store.own_connection(reuse_s=REUSED_S):
                if len(together) > 1:
                    try:
                        self._keep([letter for one in together for letter in one.letters])
                    except Exception as error:
                        logger.info(
                            "letters of several batches were not taken together; one by one now",
                            extra={"batches": len(together), "error": type(error).__name__},
                        )
                    else:
                        with self._lock:
                            for one in together:
                                one.kept = True
                        return True
                self._keep(mine.letters)
        return True


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
