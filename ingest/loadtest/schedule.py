"""Owns: which request is sent next, and when: new ones in order, refused ones when their time is.

Runs on the generator's thread; no locks. `stop()` may be called from a signal handler: it only
sets a flag.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from ingest.loadtest.load import Load
from ingest.loadtest.records import Request


class Schedule:
    def __init__(self, load: Load) -> None:
        self._load = load
        self._retries: list[tuple[float, int, Request]] = []
        self._order = 0
        self._next = 0
        self._started = 0.0
        self.stopped = False

    def start(self, now: float) -> None:
        self._started = now

    def stop(self) -> None:
        """Give out nothing any more."""
        self.stopped = True

    def waiting(self, now: float) -> bool:
        return not self.stopped and (bool(self._retries) or self._more(now))

    def take(self, now: float, *, idle: int) -> Request | None:
        """The request that one of `idle` clients should send now."""
        if self.stopped:
            return None
        if self._retries and self._retries[0][0] <= now:
            return heapq.heappop(self._retries)[2]
        if not self._more(now):
            return None
        due = self._due()
        if due is not None and due > now:
            return None
        # In a closed loop a client that waits for its retry is a busy client.
        if due is None and idle <= len(self._retries):
            return None
        count = min(self._load.batch, self._load.records - self._next)
        request = Request(first=self._next, count=count, due=due)
        self._next += count
        return request

    def again(self, request: Request, at: float) -> None:
        self._order += 1
        heapq.heappush(self._retries, (at, self._order, request))

    def moments(self, now: float) -> Iterator[float]:
        """When an idle client may have something to do."""
        if self._retries:
            yield self._retries[0][0]
        due = self._due()
        if due is not None and self._more(now):
            yield due

    def left(self) -> Iterator[Request]:
        """The requests that still wait for another attempt."""
        return (request for _, _, request in self._retries)

    def _more(self, now: float) -> bool:
        if self.stopped or self._next >= self._load.records:
            return False
        over = self._load.duration_s
        return not (over and now - self._started >= over)

    def _due(self) -> float | None:
        """When the schedule's next request is due; None in a closed loop."""
        if not self._load.rate:
            return None
        return self._started + self._next / self._load.rate
