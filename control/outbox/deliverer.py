"""The deliverer: looks whether anything is due, and gives each such channel a thread of its own.

The thread "outbox" polls by one indexed query, and sooner when it is nudged; lanes run on daemon
threads, a bounded number at once, one a channel, and end when their channel has nothing to send.
So a channel that hangs holds up no other.  `_condition` guards which lanes there are and run; it
is never held during I/O.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from django.db import connections

from control.databases.causes import cause_of, is_loss
from control.outbox import nudge, store
from control.outbox.lanes import LaneRun
from control.outbox.sources import sources
from control.processes.heart import drop_stale_connections
from pipeline.runtime.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

POLL_S = 1.5
SHORTEST_POLL_S = 0.2  # however often it is nudged
MAX_LANES_AT_ONCE = 8
MAX_LANES_KEPT = 2_000


class Deliverer:
    def __init__(
        self,
        *,
        owner: str,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._owner = owner[:100]
        self._clock = clock or SystemClock()
        self._jitter = jitter
        self._condition = threading.Condition()
        self._lanes: dict[store.Lane, LaneRun] = {}
        self._running: dict[store.Lane, threading.Thread] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing: dict[str, str] = {}

    def start(self) -> None:
        with self._condition:
            if self._thread is not None:
                return
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
            self._thread.start()

    def stop(self, deadline_s: float) -> bool:
        """Send nothing new, and wait for what is being sent; True when it ended in time.

        What did not end is sent again by another process once its lease is over.
        """
        self._stopping.set()
        nudge.nudge()
        with self._condition:
            thread, self._thread = self._thread, None
        until = self._clock.monotonic() + deadline_s
        if thread is not None:
            thread.join(deadline_s)
        idle = self.await_idle(max(0.0, until - self._clock.monotonic()))
        return idle and (thread is None or not thread.is_alive())

    def await_idle(self, timeout_s: float) -> bool:
        """Wait until no lane runs."""
        with self._condition:
            return self._condition.wait_for(lambda: not self._running, timeout_s)

    def look(self) -> int:
        """Have sources make what is due, and start the lanes that have something; how many."""
        now = datetime.fromtimestamp(self._clock.time_us() / 1e6, UTC)
        for name, source in sources():
            self._guarded(name, source, now)
        return sum(self._begin(lane) for lane in store.due_lanes(now))

    # --- parts -----------------------------------------------------------------------------

    def _begin(self, lane: store.Lane) -> bool:
        with self._condition:
            if self._stopping.is_set() or lane in self._running:
                return False
            if len(self._running) >= MAX_LANES_AT_ONCE:
                return False
            run = self._lanes.get(lane)
            if run is None:
                self._forget_one()
                run = self._lanes[lane] = LaneRun(
                    lane=lane,
                    owner=self._owner,
                    clock=self._clock,
                    pause=self._stopping.wait,
                    jitter=self._jitter,
                )
            if self._clock.monotonic() < run.not_before:
                return False
            thread = threading.Thread(
                target=self._run_lane, args=(run,), name=f"outbox-{lane[1]}"[:60], daemon=True
            )
            self._running[lane] = thread
        thread.start()
        return True

    def _forget_one(self) -> None:
        if len(self._lanes) >= MAX_LANES_KEPT:
            idle = next((lane for lane in self._lanes if lane not in self._running), None)
            if idle is not None:
                del self._lanes[idle]

    def _run_lane(self, run: LaneRun) -> None:
        try:
            self._guarded(f"channel {run.lane[1]}", run.run)
        finally:
            connections.close_all()
            with self._condition:
                del self._running[run.lane]
                self._condition.notify_all()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                drop_stale_connections()
                self._guarded("look", self.look)
                drop_stale_connections()
                if self._stopping.wait(SHORTEST_POLL_S):
                    return
                nudge.wanted.wait(POLL_S - SHORTEST_POLL_S)
                nudge.wanted.clear()
        finally:
            connections.close_all()

    def _guarded(self, name: str, act: Callable[..., object], *args: object) -> None:
        """Run it; what fails is said once for as long as it fails in the same way."""
        try:
            act(*args)
        except Exception as error:
            kind = type(error).__name__
            if self._failing.get(name) == kind:
                return
            self._failing[name] = kind
            if is_loss(error):
                logger.warning(
                    "the outbox waits for the control database",
                    extra={"task": name, "cause": cause_of(error)},
                )
            else:
                logger.exception("the outbox failed; it is tried again", extra={"task": name})
        else:
            if self._failing.pop(name, None) is not None:
                logger.info("the outbox works again", extra={"task": name})
