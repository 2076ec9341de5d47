"""How many batches a sink gets at once: a limit that finds itself from the sink's own answers.

Every attempt is measured by itself, from the write to its answer, and holds its place only while
it is with the sink: a batch in back-off holds none.  The workers are threads that may write; this
says how many of them do.

It goes up by one when it was reached for a whole round and another write at once may pay, and down
to nine tenths when the sink pushes back (one less at least), or when a round trip takes longer than
is usual (mean + 2.5 sigma).  What began before the last change says nothing of the limit that is
now, so that one hiccup under many writes lowers it once.

Round trips alone do not show a sink that slows down a little with every write more: their mean
follows.  So an increase is taken back when it did not bring at least half of what one more equal
writer would, and the next one waits for some rounds.

Pure, told the time, guarded by the pipeline's lock.
"""

from __future__ import annotations

import math

# An unusual round trip is so many standard deviations above the mean.
SIGMAS = 2.5
DECREASE = 0.9
# How much a new round trip counts for in the mean, and how many there must be to judge by them.
WEIGHT = 0.1
ENOUGH = 8
# However steady the sink has been, less than this is no deviation: a share of the mean, and what
# the threads of one process do to one another (seconds).
LEAST_DEVIATION = 0.1
LEAST_DEVIATION_S = 0.001
# The share of a whole writer's work that a writer more has to bring.
GAIN = 0.5
# How many rounds pass between an increase that did not pay, or was refused, and the next one: a
# sink that loses a write now and then is not to be taken for one that has enough.
REST_ROUNDS, REFUSED_ROUNDS = 8, 2


class RoundTrips:
    """The usual time from a write to its answer (seconds), and how much it varies.

    A batch that is larger than usual may take longer in proportion.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._mean_s = 0.0
        self._variance = 0.0
        self._mean_count = 1.0

    def unusual(self, seconds: float, count: int) -> bool:
        """Whether a round trip takes longer than the mean and 2.5 standard deviations."""
        if self._seen < ENOUGH:
            return False
        sigma = max(math.sqrt(self._variance), LEAST_DEVIATION * self._mean_s, LEAST_DEVIATION_S)
        return seconds / self._scale(count) > self._mean_s + SIGMAS * sigma

    def add(self, seconds: float, count: int) -> None:
        self._seen += 1
        weight = max(WEIGHT, 1 / self._seen)
        if self._seen == 1:
            self._mean_count = count
        difference = seconds / self._scale(count) - self._mean_s
        self._mean_s += weight * difference
        self._variance = (1 - weight) * (self._variance + weight * difference * difference)
        self._mean_count += weight * (count - self._mean_count)

    def _scale(self, count: int) -> float:
        return max(1.0, count / self._mean_count)


class ConcurrencyLimit:
    """Between 1 and `most`; see the module's text."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        # The limit is the nearest whole number: one unusual answer alone is no reason to halve two.
        self._exact = 1.0
        self._changed_s = -math.inf
        self._trips = RoundTrips()
        # The limit before the last increase, and the rate (records/s), until it is known whether
        # that paid.
        self._before: tuple[int, float] | None = None
        self._rest = 0
        # This round: whether the limit was reached, and the answers with their records and seconds.
        self._reached = False
        self._answers = self._records = 0
        self._seconds = 0.0

    @property
    def limit(self) -> int:
        """How many batches may be with the sink at once."""
        return math.ceil(self._exact - 0.5)

    def configure(self, *, most: int) -> None:
        """Take on another upper bound; what was learnt of the sink stays."""
        self._most = most
        if self.limit > most:
            self._exact, self._before = float(most), None
            self._begin_round()

    def began(self, in_hand: int) -> None:
        """An attempt begins, and with it so many are under way."""
        self._reached = self._reached or in_hand >= self.limit

    def answered(self, *, seconds: float, count: int, now: float) -> None:
        """The sink took a batch of `count` records, in so many seconds."""
        unusual = self._trips.unusual(seconds, count)
        self._trips.add(seconds, count)
        if now - seconds < self._changed_s:
            return
        if unusual:
            self._decrease(self._exact * DECREASE, now)
            return
        self._answers += 1
        self._records += count
        self._seconds += seconds
        if self._answers >= max(ENOUGH, self.limit):
            self._end_round(now)

    def pushed_back(self, *, seconds: float, now: float) -> bool:
        """The sink refused a batch, or did not answer, after so many seconds.

        Returns whether fewer writes at once answer to that; not when there is one at a time.
        """
        if self.limit == 1:
            return False
        if now - seconds >= self._changed_s:
            if self._before is not None:  # that was one too many: not again at once
                self._rest = REFUSED_ROUNDS
            # One less at least: refusals come back fast, and five in a row may open the breaker.
            self._decrease(min(self._exact * DECREASE, self.limit - 1.0), now)
        return True

    def _begin_round(self) -> None:
        self._reached = False
        self._answers = self._records = 0
        self._seconds = 0.0

    def _end_round(self, now: float) -> None:
        """As many attempts have ended as say something: judge the last increase, or try another."""
        reached = self._reached
        rate = self.limit * self._records / max(self._seconds, 1e-9)
        self._begin_round()
        if not reached:
            return
        before, self._before = self._before, None
        if before is not None and rate < self._least_rate(*before):
            self._rest = REST_ROUNDS
            self._change(before[0], now)
            return
        self._exact = max(self._exact, float(self.limit))  # a whole round went well
        if self._rest:
            self._rest -= 1
        elif self.limit < self._most:
            self._before = self.limit, rate
            self._change(self.limit + 1.0, now)

    def _least_rate(self, limit: int, rate: float) -> float:
        """What the writers that came since must bring it to."""
        return rate * (1 + GAIN * (self.limit - limit) / limit)

    def _decrease(self, exact: float, now: float) -> None:
        self._change(exact, now)
        if self._before is not None and self.limit <= self._before[0]:
            self._before = None

    def _change(self, exact: float, now: float) -> None:
        self._exact, self._changed_s = max(1.0, exact), now
        self._begin_round()
