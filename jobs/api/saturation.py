"""Whether there is room for one more job: a bounded number of open ones, between two marks.

From `capacity` open jobs on submissions are refused, until no more than `resume` of it are open.
How many there are is read from the Store's counts at most once a second, by whichever request
comes then; this process's own submissions since are added.  Other processes' are not known until
the next reading, so that together they may exceed the capacity by what they take in a second.

`_lock` guards the numbers; it is not held while the Store is asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from jobs.states import FINISHED, OPEN
from pipeline.intake.drainrate import RATE_WINDOW_S, DrainRate
from pipeline.runtime.clock import Clock

FRESH_S = 1.0
MIN_WAIT_S, MAX_WAIT_S = 1.0, 60.0
# While nobody knows yet how fast jobs end.
UNKNOWN_WAIT_S = 5.0

Counts = Mapping[int, Mapping[str, int]]


class Full(Exception):
    """There is no room; come back in `retry_after_s`."""

    def __init__(self, detail: str, *, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Saturation:
    def __init__(
        self, *, counts: Callable[[], Counts], capacity: int, resume: float, clock: Clock
    ) -> None:
        self._counts = counts
        self._capacity = capacity
        self._resume_at = int(capacity * resume)
        self._clock = clock
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._open = 0
        self._since = 0  # submitted by this process since the counts were read
        self._read_at: float | None = None
        self._finished = 0
        self._rate = DrainRate(clock)
        self._rate_known = False
        self.refusing = False

    def admit(self) -> None:
        """Raises Full; or whatever the Store raises."""
        self._refresh()
        with self._lock:
            held = self._open + self._since
            if self.refusing:
                self.refusing = held > self._resume_at
            elif held >= self._capacity:
                self.refusing = True
            if self.refusing:
                raise Full(self._words(held), retry_after_s=self._wait_s(held))

    def taken(self, jobs: int = 1) -> None:
        """So many were submitted."""
        with self._lock:
            self._since += jobs

    # --- reading ---------------------------------------------------------------------------

    def _refresh(self) -> None:
        if self._is_fresh():
            return
        # One asks; others go on with what is known, or wait where nothing is.
        if not self._reading.acquire(blocking=self._read_at is None):
            return
        try:
            if not self._is_fresh():
                self._read()
        finally:
            self._reading.release()

    def _is_fresh(self) -> bool:
        read_at = self._read_at
        return read_at is not None and self._clock.monotonic() - read_at < FRESH_S

    def _read(self) -> None:
        with self._lock:
            before = self._since
        counts = self._counts()
        held = sum(of.get(state, 0) for of in counts.values() for state in OPEN)
        finished = sum(of.get(state, 0) for of in counts.values() for state in FINISHED)
        now = self._clock.monotonic()
        with self._lock:
            # What came while the counts were read may be in them: counted twice for a second.
            self._since -= before
            self._open = max(0, held)
            self._note_rate(finished, now)
            self._read_at = now

    def _note_rate(self, finished: int, now: float) -> None:
        """Jobs that retention deleted meanwhile make it slower than it is, never faster."""
        ended, self._finished = finished - self._finished, finished
        if self._read_at is None or now - self._read_at > RATE_WINDOW_S:
            # When those ended that were not watched, nobody knows.
            self._rate.begin()
            self._rate_known = False
            return
        self._rate.add(max(0, ended))
        self._rate_known = True

    # --- what is said ----------------------------------------------------------------------

    def _wait_s(self, held: int) -> float:
        rate = self._rate.per_second() if self._rate_known else 0.0
        if rate <= 0:
            return UNKNOWN_WAIT_S
        return min(max((held - self._resume_at) / rate, MIN_WAIT_S), MAX_WAIT_S)

    def _words(self, held: int) -> str:
        rate = self._rate.per_second() if self._rate_known else 0.0
        return (
            f"{held} jobs have not ended, of {self._capacity} that may be open; {rate:.0f} a "
            f"second end. Jobs are taken again once at most {self._resume_at} are open."
        )
