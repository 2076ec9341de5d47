"""Ends connections to a database that stopped answering without closing them.

A statement sent to a machine that froze is waited on for ever: the heart with it, and each page
that wants the same database. The thread "control-stalls" looks every two seconds. What waits for
long is compared with a connection of its own: a database that answers that is only slow.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import connections

from control.databases.reach import reach_of

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
STALLED_AFTER_S = 8.0


class StallWatch:
    """`_ended` tells the thread to end; nothing else is shared."""

    def __init__(
        self,
        *,
        busy: Callable[[], tuple[str, float] | None],
        ask: Callable[[str], str] | None = None,
    ) -> None:
        self._busy = busy
        self._ask = ask or _ask
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            self._ended = threading.Event()
            self._thread = threading.Thread(target=self._run, name="control-stalls", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Without waiting: the thread may be asking a database that does not answer."""
        self._ended.set()
        self._thread = None

    def look(self) -> bool:
        """End what waits for a database that does not answer; whether there was any."""
        waiting = self._busy()
        if waiting is None or waiting[1] < STALLED_AFTER_S:
            return False
        alias = waiting[0]
        cause = self._ask(alias)
        if not cause:
            return False
        count = reach_of(alias).lose(cause)
        logger.warning(
            "a database stopped answering; its connections were ended",
            extra={"database": alias, "cause": cause, "connections": count},
        )
        return True

    def _run(self) -> None:
        ended = self._ended
        while not ended.wait(LOOK_EVERY_S):
            try:
                self.look()
            except Exception:
                logger.exception("stalled databases could not be looked for")


def _ask(alias: str) -> str:
    ask = getattr(connections[alias], "ask", None)
    return "" if ask is None else str(ask())
