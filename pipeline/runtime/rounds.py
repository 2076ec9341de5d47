"""A thread that makes its round again and again, each time saying when the next is due.

`_wake` guards whether it is to stop and whether it was called.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from pipeline.runtime.clock import Clock

log = logging.getLogger(__name__)

# However soon a round says that the next is due, the thread rests so long (seconds), ...
LEAST_S = 0.01
# ... and so long after one that failed.
FAILED_S = 1.0


class Rounds:
    """Calls `round` after `first_s`, and again after as many seconds as it returned.

    Starting and stopping are idempotent and may come in any order; stopped is stopped for good.
    `ended` is called by the thread as its last act, to give back what belongs to it.
    """

    def __init__(
        self,
        *,
        name: str,
        round: Callable[[], float],
        clock: Clock,
        first_s: float = 0.0,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = name
        self._round = round
        self._first_s = first_s
        self._ended = ended
        self._clock = clock
        self._wake = threading.Condition()
        self._called = False
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; raises RuntimeError when there is no thread to be had."""
        with self._wake:
            if self._stopped or self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            thread.start()
            self._thread = thread

    def call(self) -> None:
        """Have a round made now: when the next is due may have changed."""
        with self._wake:
            self._called = True
            self._wake.notify_all()

    def stop(self, timeout_s: float) -> bool:
        """End the thread after the round it is in; returns whether it ended within `timeout_s`."""
        with self._wake:
            self._stopped = True
            self._wake.notify_all()
            thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    def _run(self) -> None:
        rest_s = self._first_s
        try:
            while self._rest(rest_s):
                try:
                    rest_s = max(self._round(), LEAST_S)
                except Exception:
                    log.exception("thread %s: a round failed; it goes on", self._name)
                    rest_s = FAILED_S
        finally:
            self._ended()

    def _rest(self, seconds: float) -> bool:
        """Until the next round is due, or called for; returns whether there is to be one."""
        with self._wake:
            due = self._clock.monotonic() + seconds
            while not (self._stopped or self._called):
                left = due - self._clock.monotonic()
                if left <= 0:
                    break
                self._clock.wait(self._wake, left)
            self._called = False
            return not self._stopped
