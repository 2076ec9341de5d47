"""Admission: room in one pipeline, reserved before anything is appended.

Request threads reserve, workers release.  `_lock` guards what is held and the refusing state;
it is a leaf: nothing else is taken while it is held.
"""

from __future__ import annotations

import threading
from collections import deque

from pipeline.errors import Saturated, TooLarge
from pipeline.runtime.clock import Clock
from pipeline.settings import PipelineSettings

RATE_WINDOW_S = 10.0
RETRY_AFTER_MIN_S, RETRY_AFTER_MAX_S = 1.0, 60.0


class DrainRate:
    """Records settled per second over the last ten seconds, or since the last idle moment.

    Time in which nothing was held says nothing about how fast the sink is, and is not counted.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seconds: deque[tuple[int, int]] = deque()
        self._since = clock.monotonic()

    def begin(self) -> None:
        """Something is held again after nothing was."""
        self._seconds.clear()
        self._since = self._clock.monotonic()

    def add(self, count: int) -> None:
        second = int(self._clock.monotonic())
        if self._seconds and self._seconds[-1][0] == second:
            self._seconds[-1] = (second, self._seconds[-1][1] + count)
        else:
            self._seconds.append((second, count))
            self._expire(second)

    def _expire(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] <= second - RATE_WINDOW_S:
            self._seconds.popleft()

    def per_second(self) -> float:
        now = self._clock.monotonic()
        self._expire(int(now))
        span = min(max(now - self._since, 1.0), RATE_WINDOW_S)
        return sum(count for _, count in self._seconds) / span

    def age_s(self) -> float:
        """For how long something has been held without a break (seconds)."""
        return self._clock.monotonic() - self._since


class Closed(Exception):
    """This pipeline takes nothing any more: the offer has to be routed again."""


class Admission:
    """How much one sink's records may occupy, by count and by encoded bytes.

    Above the high watermark offers are refused until what is held has fallen to the low one.
    Room is held from before the append until the records have ended, so once nothing is held by a
    closed admission, nothing more will come.
    """

    def __init__(self, *, name: str, settings: PipelineSettings, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._drained = DrainRate(clock)
        self.held_records = 0
        self.held_bytes = 0
        self.refusing = False
        self.refused = 0
        self._closed = False
        self.configure(settings, name=name)

    def configure(self, settings: PipelineSettings, *, name: str) -> None:
        with self._lock:
            self._settings, self._name = settings, name
            self._update()

    def close(self) -> None:
        """Take nothing from now on: `reserve` and `fits` raise Closed."""
        with self._lock:
            self._closed = True

    def reopen(self) -> None:
        with self._lock:
            self._closed = False

    def _update(self) -> None:
        settings = self._settings
        usage = max(
            self.held_records / settings.capacity_records,
            self.held_bytes / settings.backlog_max_bytes,
        )
        if usage >= settings.high_watermark:
            self.refusing = True
        elif usage <= settings.low_watermark:
            self.refusing = False

    def check(self) -> Saturated | None:
        """Whether an offer would be refused whatever its size; counts the refusal."""
        looked = self.refusing
        if not looked:
            return None
        with self._lock:
            if self.refusing:
                self.refused += 1
                return self._saturated()
            return None

    def reserve(self, records: int, nbytes: int) -> None:
        """Room for an offer, or Saturated (come back later) or TooLarge (never)."""
        with self._lock:
            settings = self._settings
            if self._closed:
                raise Closed
            if not self.could_fit(records, nbytes):
                self.refused += 1
                raise TooLarge(
                    f"{records} records of {nbytes} bytes can never fit into sink {self._name!r}, "
                    f"which holds {settings.capacity_records} records and "
                    f"{settings.backlog_max_bytes} bytes: send less in one request",
                    limit=f"capacity_records={settings.capacity_records}, "
                    f"backlog_max_bytes={settings.backlog_max_bytes}",
                )
            if (
                self.refusing
                or self.held_records + records > settings.capacity_records
                or self.held_bytes + nbytes > settings.backlog_max_bytes
            ):
                self.refused += 1
                raise self._saturated()
            self._hold(records, nbytes)

    def fits_without(
        self, waiting_records: int, waiting_bytes: int, records: int, nbytes: int
    ) -> bool:
        """Whether an optional sink would have room if what waits were gone."""
        with self._lock:
            settings = self._settings
            return (
                self.held_records - waiting_records + records <= settings.capacity_records
                and self.held_bytes - waiting_bytes + nbytes <= settings.backlog_max_bytes
            )

    def fits(self, records: int, nbytes: int) -> bool:
        """Take room for an optional sink, whatever the watermarks say; False if there is none."""
        with self._lock:
            settings = self._settings
            if self._closed:
                raise Closed
            if (
                self.held_records + records > settings.capacity_records
                or self.held_bytes + nbytes > settings.backlog_max_bytes
            ):
                return False
            self._hold(records, nbytes)
            return True

    def adopt(self, records: int, nbytes: int) -> None:
        """Hold what was taken in by another process, whether there is room or not."""
        with self._lock:
            self._hold(records, nbytes)

    def _hold(self, records: int, nbytes: int) -> None:
        if not self.held_records:
            self._drained.begin()
        self.held_records += records
        self.held_bytes += nbytes
        self._update()

    def could_fit(self, records: int, nbytes: int) -> bool:
        """Whether so much would fit if nothing else were held."""
        settings = self._settings
        return records <= settings.capacity_records and nbytes <= settings.backlog_max_bytes

    def release(self, records: int, nbytes: int, *, drained: bool = True) -> None:
        """Give room back; `drained` tells whether the records left through the sink."""
        with self._lock:
            self.held_records -= records
            self.held_bytes -= nbytes
            if drained:
                self._drained.add(records)
            self._update()

    def drain_rate(self) -> float:
        """Records per second that left while any were held, over at most ten seconds."""
        with self._lock:
            return self._drained.per_second()

    def _saturated(self) -> Saturated:
        settings = self._settings
        # What must leave before the low watermark is reached, of whichever capacity is scarcer.
        excess_records = self.held_records - settings.low_watermark * settings.capacity_records
        excess_bytes = self.held_bytes - settings.low_watermark * settings.backlog_max_bytes
        per_record = self.held_bytes / self.held_records if self.held_records else 1.0
        excess = max(excess_records, excess_bytes / max(per_record, 1.0), 0.0)
        rate = self._drained.per_second()
        # While nothing has left yet nobody knows the rate: come back after as long again.
        seconds = excess / rate if rate > 0 else self._drained.age_s()
        seconds = min(max(seconds, RETRY_AFTER_MIN_S), RETRY_AFTER_MAX_S)
        return Saturated(
            f"sink {self._name!r} holds {self.held_records} records of "
            f"{settings.capacity_records} and {self.held_bytes} bytes of "
            f"{settings.backlog_max_bytes}, and drains {rate:.0f} records a second",
            retry_after_s=seconds,
        )
