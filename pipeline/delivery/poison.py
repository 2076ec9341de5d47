"""Poison, or a fault of the sink: the share of the records that it may refuse.

One bad record costs one record.  But a sink that refuses many has changed (a new constraint, a
column of another type), and to dead-letter what it refuses would empty the log into the dead
letters.  So refusals are counted against the records tried, over `WINDOW_S`; from `MIN_RECORDS`
and `MIN_REFUSED` on, a share above `poison_limit` is a fault of the sink: the batch is held, its
outcome trips the breaker, and nothing of it is dead-lettered.

From then on, until the share has sunk to the limit, each batch is judged by its own share, however
small it is: the probes of a half-open breaker find out whether the sink is well again, one batch at
a time, and a probe that is refused dead-letters nothing either.  A batch without refusals is
settled as ever, which closes the breaker.  One that is refused as a whole, without a word on which
record it is, is taken apart as ever, which says nothing yet: its parts are the next probes.

When the records really are all poison, nothing here will ever let them go: the operator raises
`poison_limit` (1: off), which lets the next attempt dead-letter them, to be edited and redriven.

This is judged after the write, because only the sink knows.  After a PartialFailure the good
records of a batch that is held are stored; a sink with proofs finds that on the next attempt and
stores nothing twice, but elsewhere each probe may store them again, so such a batch waits longer
each time (`HOLD_CAP_S`).  What comes after it is held back before it is written, by the breaker.
Batches of a redrive are not to be judged: they are known to be suspicious, and the operator asked.

Pure, guarded by the pipeline's lock, told the time.
"""

from __future__ import annotations

import dataclasses
from collections import deque

from pipeline.delivery.deliver import Outcome
from pipeline.errors import SinkError

WINDOW_S = 60.0
MIN_RECORDS = 200
MIN_REFUSED = 20
# The window moves on in so many steps, so that it holds this many counts at most.
STEPS = 60
# A held batch waits twice as long as before each time, from the first of these to the second.
HOLD_S = 30.0
HOLD_CAP_S = 300.0


class TooManyRefused(SinkError):
    """The sink refuses so many records that the fault is taken to be its own.

    Not a SinkFault: a batch that fails for that alone may be taken apart, but this one may be
    stored in part, and its halves would be other batches to a sink with proofs.
    """


class PoisonWindow:
    """See the module's text."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._steps: deque[list[int]] = deque()  # [number of the step, tried, refused]
        self.suspects_sink = False

    def configure(self, limit: float) -> None:
        """Take on a changed limit; another one judges anew."""
        if limit != self._limit:
            self._limit = limit
            self.reset()

    def reset(self) -> None:
        """Forget: the sink was replaced, or its limit changed."""
        self._steps.clear()
        self.suspects_sink = False

    def judge(self, outcome: Outcome, *, count: int, attempt: int, now: float) -> Outcome:
        """The outcome of an attempt with `count` records, or in its place the sink's fault."""
        gone = outcome.drop_reason != "permanent"  # given up, which says nothing of the records
        if outcome.split:
            return dataclasses.replace(outcome, inconclusive=self.suspects_sink)
        if gone or outcome.retry_in_s is not None:
            return outcome
        refused = len(outcome.failures)
        tried_all, refused_all = self._count(now, count, refused)
        over = refused_all > self._limit * tried_all
        if self.suspects_sink:
            self.suspects_sink = over
            over = over and refused > self._limit * count
        elif over:
            over = tried_all >= MIN_RECORDS and refused_all >= MIN_REFUSED
        if not over or not refused:
            return outcome
        self.suspects_sink = True
        index = max(outcome.failures)
        error = TooManyRefused(
            f"the sink refused {refused_all} of the {tried_all} records of the last "
            f"{WINDOW_S:g} s ({refused_all / tried_all:.1%}; poison_limit is {self._limit:.1%}), "
            "so the fault is taken to be its own and no record is given up. Repair the sink, or "
            f"raise its poison_limit (1: off). The last reason: {outcome.failures[index]}"
        )
        return dataclasses.replace(
            outcome,
            error=error,
            failures={},
            already_stored=0,
            retry_in_s=min(HOLD_CAP_S, HOLD_S * 2.0 ** min(attempt - 1, 10)),
            trip=True,
        )

    def _count(self, now: float, tried: int, refused: int) -> tuple[int, int]:
        """Enter an attempt; returns the records tried and refused in the window."""
        number = int(now * STEPS / WINDOW_S)
        if not self._steps or self._steps[-1][0] != number:
            self._steps.append([number, 0, 0])
        self._steps[-1][1] += tried
        self._steps[-1][2] += refused
        while self._steps[0][0] <= number - STEPS:
            self._steps.popleft()
        return sum(one[1] for one in self._steps), sum(one[2] for one in self._steps)
