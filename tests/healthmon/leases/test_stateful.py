"""Keepers against one database, in any order of beats, stops, freezes and outages.

At no moment do two keepers hold the same slot under the same epoch; an epoch never comes back
with another holder; once everything works every slot is held, and evenly.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from healthmon.leases.keeper import Keeper
from healthmon.leases.models import Checker, ProbeSlot
from healthmon.leases.store import LeaseStore, Picture
from healthmon.targets.models import SLOTS
from pipeline.runtime.clock import FakeClock

LEASE_S = 10.0
NAMES = ("a", "b", "c")
HOW = ("well", "before", "after")

pytestmark = pytest.mark.django_db


class Faulty(LeaseStore):
    """Each call may fail before it is done, or after it was, so that its answer is lost."""

    def __init__(self, clock: FakeClock) -> None:
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        super().__init__(
            lease_s=LEASE_S, now=lambda: epoch + timedelta(microseconds=clock.time_us())
        )
        self.plan: dict[str, str] = {}

    def _faulty(self, name: str, call: Callable[[], Any]) -> Any:
        how = self.plan.get(name, "well")
        if how == "before":
            raise OperationalError("Connection refused")
        answer = call()
        if how == "after":
            raise OperationalError("server closed the connection unexpectedly")
        return answer

    def renew(self, checker: str, **about: Any) -> Picture:
        picture: Picture = self._faulty(
            "renew", lambda: super(Faulty, self).renew(checker, **about)
        )
        return picture

    def take(self, checker: str, slots: Any) -> dict[int, int]:
        taken: dict[int, int] = self._faulty(
            "take", lambda: super(Faulty, self).take(checker, slots)
        )
        return taken

    def release(self, checker: str, slots: Any) -> None:
        self._faulty("release", lambda: super(Faulty, self).release(checker, slots))


class One:
    def __init__(self, name: str, clock: FakeClock) -> None:
        self.store = Faulty(clock)
        self.probing: set[int] = set()
        self.alive = True
        self.keeper = Keeper(
            checker_id=name,
            store=self.store,
            lease_s=LEASE_S,
            clock=clock,
            on_taken=self._taken,
            on_lost=self._lost,
        )

    def _taken(self, slots: set[int]) -> None:
        assert not slots & self.probing
        self.probing |= slots

    def _lost(self, slots: set[int]) -> None:
        assert slots <= self.probing
        self.probing -= slots


class Keepers(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        Checker.objects.all().delete()
        ProbeSlot.objects.all().delete()
        self.clock = FakeClock()
        self.lives = 0
        self.ones: dict[str, One] = {}
        self.holders: dict[tuple[int, int], str] = {}

    def _new(self, name: str) -> One:
        self.lives += 1
        one = self.ones[name] = One(f"{name}{self.lives}", self.clock)
        return one

    @rule(name=st.sampled_from(NAMES), renew=st.sampled_from(HOW), take=st.sampled_from(HOW),
          release=st.sampled_from(HOW))  # fmt: skip
    def beat(self, name: str, renew: str, take: str, release: str) -> None:
        one = self.ones.get(name) or self._new(name)
        one.store.plan = {"renew": renew, "take": take, "release": release}
        one.keeper.beat()

    @rule(name=st.sampled_from(NAMES))
    def beat_well(self, name: str) -> None:
        self.beat(name, "well", "well", "well")

    @rule(seconds=st.sampled_from([0.5, 3.4, 3.4, 6.0, 11.0, 60.0]), awake=st.booleans())
    def advance(self, seconds: float, awake: bool) -> None:
        """Time goes on; those awake pulse meanwhile, the others were stopped."""
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            if awake:
                for one in self.ones.values():
                    one.keeper.pulse()

    @rule(name=st.sampled_from(NAMES))
    @precondition(lambda self: self.ones)
    def kill(self, name: str) -> None:
        self.ones.pop(name, None)

    @rule(name=st.sampled_from(NAMES))
    @precondition(lambda self: self.ones)
    def stop(self, name: str) -> None:
        one = self.ones.pop(name, None)
        if one is not None:
            one.keeper.stop()
            assert not one.probing

    @invariant()
    def no_epoch_has_two_holders(self) -> None:
        for one in getattr(self, "ones", {}).values():
            held = one.keeper.epochs()
            assert one.probing >= held.keys()
            for key in held.items():
                owner = self.holders.setdefault(key, one.keeper.checker_id)
                assert owner == one.keeper.checker_id, f"slot and epoch {key}"

    @rule()
    @precondition(lambda self: self.ones)
    def in_the_end_all_slots_are_held_evenly(self) -> None:
        for _ in range(9):  # 30 s: a dead one's lease ends, then shares are made even
            for _ in range(4):
                self.clock.advance(LEASE_S / 12)
                for one in self.ones.values():
                    one.keeper.pulse()
            for name in self.ones:
                self.beat_well(name)
            self.no_epoch_has_two_holders()
        held = [one.keeper.epochs().keys() for one in self.ones.values()]
        assert sorted(slot for one in held for slot in one) == list(range(SLOTS))
        assert max(map(len, held)) - min(map(len, held)) <= 1


def test_whatever_happens_no_lease_is_held_twice() -> None:
    run_state_machine_as_test(
        Keepers,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
