"""Whether there is room for one more job: a bounded number of open ones, between two marks.

From `capacity` open jobs on submissions are refused, until no more than `resume` of it are open.
Jobs that their clients want run later hold no such room, or a few of them could keep everybody
out for years: they have half the capacity to themselves, and when that is full only such jobs are
refused.

How many there are is read from the Store's counts at most once a second, by whichever request
comes then; this process's own submissions since are added.  Other processes' are not known until
the next reading, so that together they may exceed the capacity by what they take in a second.

`_lock` guards the numbers; it is not held while the Store is asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from jobs.states import FINISHED, OPEN, SCHEDULED
from pipeline.intake.drainrate import RATE_WINDOW_S, DrainRate
from pipeline.runtime.clock import Clock

FRESH_S = 1.0
MIN_WAIT_S, MAX_WAIT_S = 1.0, 60.0
# While nobody knows yet how fast jobs end.
UNKNOWN_WAIT_S = 5.0
# So long nothing must have ended for it to be known that nothing does.
STILL_S = 5.0
# The part of the capacity that jobs for later may hold besides.
LATER_SHARE = 0.5

Counts = Mapping[int, Mapping[str, int]]


class Full(Exception):
    """There is no room; come back in `retry_after_s`."""

    def __init__(self, detail: str, *, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Saturation:
    """`later` counts the jobs for later, up to a number; `lives` tells whether a runner does."""

    def __init__(
        self,
        *,
        counts: Callable[[], Counts],
        capacity: int,
        resume: float,
        clock: Clock,
        later: Callable[[int], int] = lambda most: 0,
        lives: Callable[[], bool] = lambda: True,
    ) -> None:
        self._counts = counts
        self._count_later = later
        self._lives = lives
        self._capacity = capacity
        self._resume_at = int(capacity * resume)
        self._later_capacity = max(1, int(capacity * LATER_SHARE))
        self._clock = clock
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._open = 0  # but for those for later
        self._later = 0
        # Submitted by this process since the counts were read.
        self._since = 0
        self._later_since = 0
        self._read_at: float | None = None
        self._finished = 0
        self._rate = DrainRate(clock)
        self._rate_known = False
        self._runner_lives = True
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

    def admit_later(self) -> None:
        """For a job that is for later, besides `admit`.  Raises as that does."""
        self._refresh()
        with self._lock:
            held = self._later + self._later_since
            if held >= self._later_capacity:
                raise Full(
                    f"{held} jobs wait for a time that is more than a minute ahead, of "
                    f"{self._later_capacity} that may; jobs for now are taken.",
                    retry_after_s=MAX_WAIT_S,
                )

    def taken(self, jobs: int = 1, *, later: bool = False) -> None:
        """So many were submitted."""
        with self._lock:
            if later:
                self._later_since += jobs
            else:
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
            before, later_before = self._since, self._later_since
        counts = self._counts()
        held = max(0, sum(of.get(state, 0) for of in counts.values() for state in OPEN))
        scheduled = sum(of.get(SCHEDULED, 0) for of in counts.values())
        finished = sum(of.get(state, 0) for of in counts.values() for state in FINISHED)
        later = self._read_later(held, scheduled)
        lives = held - later < self._resume_at or self._lives()
        now = self._clock.monotonic()
        with self._lock:
            # What came while the counts were read may be in them: counted twice for a second.
            self._since -= before
            self._later_since -= later_before
            self._open = held - later
            self._later = later
            self._runner_lives = lives
            self._note_rate(finished, now)
            self._read_at = now

    def _read_later(self, held: int, scheduled: int) -> int:
        """Counted one by one, so only where it can matter."""
        if scheduled < self._later_capacity and (scheduled <= 0 or held < self._resume_at):
            return 0
        # More than may be, where several processes took them in: they are told from the rest.
        return min(self._count_later(self._later_capacity * 2), held)

    def _note_rate(self, finished: int, now: float) -> None:
        """Jobs that retention deleted meanwhile make it slower than it is, never faster."""
        ended, self._finished = finished - self._finished, finished
        if self._read_at is None or now - self._read_at > RATE_WINDOW_S or ended < 0:
            # When those ended that were not watched, nobody knows.
            self._rate.begin()
            self._rate_known = False
            return
        self._rate.add(ended)
        self._rate_known = True

    # --- what is said ----------------------------------------------------------------------

    def _wait_s(self, held: int) -> float:
        if not self._runner_lives:
            return MAX_WAIT_S
        rate = self._rate.per_second() if self._rate_known else 0.0
        if rate > 0:
            return min(max((held - self._resume_at) / rate, MIN_WAIT_S), MAX_WAIT_S)
        still = self._rate_known and self._rate.age_s() >= STILL_S
        return MAX_WAIT_S if still else UNKNOWN_WAIT_S

    def _words(self, held: int) -> str:
        rate = self._rate.per_second() if self._rate_known else 0.0
        later = self._later + self._later_since
        besides = f", besides {later} for later" if later else ""
        pace = f"{rate:.0f} a second end" if self._runner_lives else "no runner lives"
        return (
            f"{held} jobs have not ended{besides}, of {self._capacity} that may be open; {pace}. "
            f"Jobs are taken again once at most {self._resume_at} are open."
        )
