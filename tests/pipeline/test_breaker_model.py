"""The breaker against a naive one that keeps every attempt and decides by looking at all of them.

The two share no code but the settings: the naive one has lists of what happened where the breaker
has counters, and no generations but the period an attempt was begun in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from pipeline.delivery.breaker import STEPS, Breaker, BreakerSettings, Permit
from pipeline.delivery.retry import RETRY_AFTER_CAP_S

SETTINGS = st.builds(
    BreakerSettings,
    enabled=st.sampled_from([True, True, True, False]),
    consecutive=st.integers(1, 6),
    failure_ratio=st.sampled_from([0.3, 0.5, 0.6, 1.0]),
    min_calls=st.integers(1, 6),
    window_s=st.sampled_from([5.0, 60.0]),
    open_s=st.sampled_from([1.0, 30.0]),
    half_open_probes=st.integers(1, 3),
)


@dataclass
class Period:
    """A time in one state; a new one begins with every change."""

    state: str
    began: float
    ended: float | None = None
    out: int = 0
    """Attempts begun and not ended."""
    ends: list[tuple[float, bool]] = field(default_factory=list)
    """When each attempt of this period ended, and whether it failed."""


@dataclass
class Pass:
    """A permit and the period that gave it."""

    permit: Permit
    period: Period
    ended: bool = False


class BreakerModel(RuleBasedStateMachine):
    passes = Bundle("passes")

    @initialize(chosen=SETTINGS)
    def begin(self, chosen: BreakerSettings) -> None:
        self.now = 100.0
        self.settings = chosen
        self.breaker = Breaker(chosen, self.now)
        self.periods = [Period("closed", self.now)]
        self.counted_from = 0  # settings that changed begin the window anew
        self.asked: list[float] = []
        self.trips = 0

    @property
    def period(self) -> Period:
        return self.periods[-1]

    def enter(self, state: str) -> None:
        self.period.ended = self.now
        self.periods.append(Period(state, self.now))
        self.counted_from = 0
        if state == "closed":
            self.asked = []

    def open_until(self) -> float:
        return max([self.period.began + self.settings.open_s, *self.asked])

    def may_have(self) -> bool:
        if self.period.state == "open":
            return self.now >= self.open_until()
        if self.period.state == "half_open":
            good = sum(not failed for _, failed in self.period.ends)
            return self.period.out + good < self.settings.half_open_probes
        return True

    # --- what happens ----------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.125, 1.0, 4.0, 15.0, 30.0, 61.0, 500.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=passes)
    def ask(self) -> Pass:
        permit = self.breaker.permit(self.now)
        if self.period.state == "open" and self.now >= self.open_until():
            self.enter("half_open")
        assert (permit is not None) == self.may_have()
        if permit is None:
            return multiple()  # type: ignore[return-value]
        self.period.out += 1
        return Pass(permit, self.period)

    def ends(self, one: Pass, failed: bool | None) -> bool:
        counts = not one.ended and one.period is self.period
        if counts:
            one.ended = True
            self.period.out -= 1
            if failed is not None:
                self.period.ends.append((self.now, failed))
        return counts

    @rule(one=passes)
    def succeed(self, one: Pass) -> None:
        self.breaker.succeeded(one.permit, self.now)
        if not self.ends(one, False):
            return
        if self.period.state == "closed":
            self.asked = []
        elif len(self.period.ends) >= self.settings.half_open_probes:
            self.enter("closed")

    @rule(
        one=passes,
        asked=st.sampled_from([None, None, 2.0, 45.0, 1e9]),
        trip=st.sampled_from([False, False, False, True]),
    )
    def fail(self, one: Pass, asked: float | None, trip: bool) -> None:
        self.breaker.failed(one.permit, self.now, "cause", retry_after_s=asked, trip=trip)
        if not self.settings.enabled:
            self.ends(one, None)
            return
        if not self.ends(one, True):
            return
        if asked is not None:
            self.asked.append(self.now + min(asked, RETRY_AFTER_CAP_S))
        if self.period.state == "half_open" or trip or self.is_failing():
            self.trips += 1
            self.enter("open")

    @rule(one=consumes(passes))
    def ignore(self, one: Pass) -> None:
        self.breaker.ignored(one.permit)
        self.ends(one, None)

    @rule()
    def replace(self) -> None:
        self.breaker.reset(self.now)
        self.enter("closed")

    @rule(chosen=SETTINGS)
    def configure(self, chosen: BreakerSettings) -> None:
        self.breaker.configure(chosen, self.now)
        changed, self.settings = chosen != self.settings, chosen
        if not changed:
            return
        self.counted_from = len(self.period.ends)
        good = sum(not failed for _, failed in self.period.ends)
        if not chosen.enabled or (
            self.period.state == "half_open" and good >= chosen.half_open_probes
        ):
            self.enter("closed")

    def is_failing(self) -> bool:
        row = 0
        for _, failed in reversed(self.period.ends):
            if not failed:
                break
            row += 1
        rate = STEPS / self.settings.window_s  # exact, as are the times: no rounding at an edge
        oldest = math.floor(self.now * rate) - STEPS
        seen = [
            failed
            for when, failed in self.period.ends[self.counted_from :]
            if math.floor(when * rate) > oldest
        ]
        enough = len(seen) >= self.settings.min_calls
        return row >= self.settings.consecutive or (
            enough and sum(seen) / len(seen) >= self.settings.failure_ratio
        )

    # --- what holds always -----------------------------------------------------------------

    @invariant()
    def they_agree(self) -> None:
        if not hasattr(self, "breaker"):
            return
        breaker, now = self.breaker, self.now
        assert breaker.state == self.period.state
        assert breaker.trips == self.trips
        if self.period.state == "open":
            left = max(0.0, self.open_until() - now)
            assert breaker.due_s(now) == breaker.retry_in_s(now) == left
            assert breaker.cause == "cause"
        elif self.period.state == "closed":
            assert breaker.cause == ""
        if self.period.state != "open":
            assert breaker.retry_in_s(now) == 0
            assert breaker.due_s(now) == (0 if self.may_have() else None)

    @invariant()
    def somebody_can_always_end_the_waiting(self) -> None:
        """Whenever nobody may begin, time or an attempt under way will change that."""
        if not hasattr(self, "breaker"):
            return
        if self.breaker.due_s(self.now) is None:
            assert self.period.out > 0

    @invariant()
    def only_closed_time_counts(self) -> None:
        if not hasattr(self, "breaker"):
            return
        closed = sum(
            (self.now if one.ended is None else one.ended) - one.began
            for one in self.periods
            if one.state == "closed"
        )
        assert math.isclose(self.breaker.closed_s(self.now), closed, abs_tol=1e-6)


TestBreakerModel = BreakerModel.TestCase
TestBreakerModel.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
