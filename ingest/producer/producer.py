"""Owns: the producer's thread: a log at each tick, slower the fuller the queue is.

The thread alone counts; whoever watches reads the counts without a lock.  `_wake` guards
`_stopping` and ends every pause at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from ingest.producer.hello import hello
from ingest.producer.pace import pace
from pipeline.errors import Refused, Saturated
from pipeline.record import Record
from pipeline.runtime.clock import Clock

log = logging.getLogger(__name__)

# Ticks that the system let pass are made up for, if they are not older than this (seconds): a
# sleep of 100 us takes half as long again.  Those that passed while it paused are not.
MAKE_UP_S = 0.01


class Producer:
    """Makes logs until told to stop, or until `count` are made or `duration_s` is over.

    `offer` takes each or raises Saturated, upon which the same is offered again after a pause:
    what was made is either counted in `produced` or, at the end, was never taken by anybody.
    `ended` is called on the thread as the last thing it does.
    """

    def __init__(
        self,
        *,
        rate_s: float,
        offer: Callable[[Sequence[Record]], object],
        usage: Callable[[], float],
        ended: Callable[[], None],
        clock: Clock,
        count: int | None = None,
        duration_s: float | None = None,
    ) -> None:
        self._rate_s, self._count, self._duration_s = rate_s, count, duration_s
        self._offer, self._usage, self._ended = offer, usage, ended
        self._clock = clock
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="producer", daemon=True)
        self.produced = 0
        self.refused = 0  # offers that found no room; each was made again
        self.paced_s = 0.0  # how long it has paused because the queue was full
        self.why = ""  # why it ended, "" while it runs
        self.broke = False  # whether that is no proper end

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Make nothing more; returns whether the thread has ended."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.why = self._produce()
        except Refused as error:
            self.why, self.broke = f"the queue takes nothing more: {error}", True
        except Exception as error:
            log.exception("the producer broke")
            self.why, self.broke = f"the producer broke: {type(error).__name__}: {error}", True
        finally:
            self._ended()

    def _produce(self) -> str:
        clock, rate_s = self._clock, self._rate_s
        due = now = clock.monotonic()
        end = None if self._duration_s is None else now + self._duration_s
        while self._count is None or self.produced < self._count:
            pause_s = pace(self._usage())
            if pause_s:
                if not self._paused(pause_s):
                    return "stopped"
                due = max(due, clock.monotonic())
            now = clock.monotonic()
            if due > now and not self._sleep((due if end is None else min(due, end)) - now):
                return "stopped"
            if self._is_over(end):
                return "its time is over"
            if self._stopping or not self._offered(end):
                return "its time is over" if self._is_over(end) else "stopped"
            due = max(due + rate_s, clock.monotonic() - MAKE_UP_S)
        return f"{self._count} logs are made"

    def _is_over(self, end: float | None) -> bool:
        return end is not None and self._clock.monotonic() >= end

    def _offered(self, end: float | None) -> bool:
        record = hello(self._clock.time_us())
        while True:
            try:
                self._offer([record])
            except Saturated:
                self.refused += 1
                if not self._paused(pace(1.0)) or self._is_over(end):
                    return False
            else:
                self.produced += 1
                return True

    def _paused(self, seconds: float) -> bool:
        begun = self._clock.monotonic()
        goes_on = self._sleep(seconds)
        self.paced_s += self._clock.monotonic() - begun
        return goes_on

    def _sleep(self, seconds: float) -> bool:
        """Whether to go on afterwards."""
        due = self._clock.monotonic() + seconds
        with self._wake:
            while not self._stopping and (left := due - self._clock.monotonic()) > 0:
                self._clock.wait(self._wake, left)
            return not self._stopping
