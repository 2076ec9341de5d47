"""One or several keepers, beat by beat, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError

from healthmon.leases.keeper import Keeper
from healthmon.leases.models import Checker, ProbeSlot
from healthmon.leases.store import LeaseStore, Picture
from healthmon.targets.models import SLOTS
from pipeline.runtime.clock import FakeClock

LEASE_S = 10.0
BEAT_S = LEASE_S / 3
pytestmark = pytest.mark.django_db


class Flaky(LeaseStore):
    """A store whose database can be taken away, before a call or after it was done."""

    before: bool = False
    after: bool = False
    meanwhile: Callable[[], None] | None = None

    def renew(self, checker: str, *, host: str = "", pid: int = 0, log_id: str = "") -> Picture:
        if self.before:
            raise OperationalError("Connection refused")
        picture = super().renew(checker, host=host, pid=pid, log_id=log_id)
        if self.meanwhile is not None:
            self.meanwhile()
        if self.after:
            raise OperationalError("server closed the connection unexpectedly")
        return picture


class One:
    """A keeper with what it told of."""

    def __init__(self, name: str, clock: FakeClock) -> None:
        self.clock = clock
        self.store = Flaky(lease_s=LEASE_S, now=lambda: _moment(clock))
        self.told: list[tuple[str, set[int]]] = []
        self.former: dict[int, str] = {}
        self.probing: set[int] = set()
        self.keeper = Keeper(
            checker_id=name,
            store=self.store,
            lease_s=LEASE_S,
            clock=clock,
            on_taken=self._taken,
            on_lost=self._lost,
            before_taken=self._before,
        )

    def _before(self, former: Mapping[int, str]) -> None:
        self.former = dict(former)

    def _taken(self, slots: set[int]) -> None:
        assert slots <= self.keeper.epochs().keys()
        assert not slots & self.probing
        self.told.append(("taken", slots))
        self.probing |= slots

    def _lost(self, slots: set[int]) -> None:
        assert slots <= self.probing
        self.told.append(("lost", slots))
        self.probing -= slots

    @property
    def held(self) -> set[int]:
        return set(self.keeper.epochs())


def _moment(clock: FakeClock) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=clock.time_us())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def beats(clock: FakeClock, *ones: One, rounds: int = 1) -> None:
    for _ in range(rounds):
        clock.advance(BEAT_S)
        for one in ones:
            one.keeper.pulse()
        for one in ones:
            one.keeper.beat()


def test_the_first_takes_everything(clock: FakeClock) -> None:
    a = One("a", clock)
    assert a.keeper.beat() == pytest.approx(BEAT_S)
    assert a.keeper.epochs() == dict.fromkeys(range(SLOTS), 1)
    assert a.told == [("taken", set(range(SLOTS)))]
    assert a.former == dict.fromkeys(range(SLOTS), "")


def test_a_newcomer_gets_its_share_in_less_than_a_lease(clock: FakeClock) -> None:
    a, b = One("a", clock), One("b", clock)
    a.keeper.beat()
    b.keeper.beat()
    assert not b.held
    beats(clock, a, b)
    assert len(a.held) == len(b.held) == SLOTS // 2
    assert not a.held & b.held
    assert set(b.keeper.epochs().values()) == {2}
    assert a.probing == a.held
    assert b.probing == b.held


def test_three_share_as_evenly_as_can_be_and_nothing_moves_without_need(clock: FakeClock) -> None:
    three = [One(name, clock) for name in "abc"]
    beats(clock, *three, rounds=4)
    assert sorted(len(one.held) for one in three) == [21, 21, 22]
    before = [one.keeper.epochs() for one in three]
    beats(clock, *three, rounds=3)
    assert [one.keeper.epochs() for one in three] == before


def test_who_leaves_is_followed_at_the_next_beat(clock: FakeClock) -> None:
    a, b = One("a", clock), One("b", clock)
    beats(clock, a, b, rounds=3)
    a.keeper.stop()
    assert not a.probing
    assert not Checker.objects.filter(pk="a").exists()
    beats(clock, b)
    assert len(b.held) == SLOTS


def test_without_release_the_lease_runs_out_first(clock: FakeClock) -> None:
    a, b = One("a", clock), One("b", clock)
    beats(clock, a, b, rounds=3)
    a.keeper.stop(release=False)
    beats(clock, b)
    assert len(b.held) == SLOTS // 2
    beats(clock, b, rounds=3)
    assert len(b.held) == SLOTS


def test_a_killed_one_is_replaced_within_fifteen_seconds(clock: FakeClock) -> None:
    a, b = One("a", clock), One("b", clock)
    beats(clock, a, b, rounds=3)
    of_a = a.held
    beats(clock, b, rounds=4)  # 13.3 s
    assert len(b.held) == SLOTS
    assert {slot for slot, holder in b.former.items() if holder == "a"} == of_a
    assert {b.keeper.epochs()[slot] for slot in of_a} == {2}


def test_the_database_goes_away_and_nothing_is_given_up(clock: FakeClock) -> None:
    a = One("a", clock)
    beats(clock, a)
    a.store.before = True
    assert a.keeper.beat() == 1.0
    beats(clock, a, rounds=20)
    assert len(a.held) == SLOTS
    assert a.keeper.status().database_error == "nothing listens at its address"
    a.store.before = False
    beats(clock, a)
    assert a.keeper.epochs() == dict.fromkeys(range(SLOTS), 1)
    assert a.keeper.status().database_error == ""
    assert len(a.told) == 1


def test_what_was_lost_while_the_database_was_away_is_found_out(clock: FakeClock) -> None:
    a, b = One("a", clock), One("b", clock)
    beats(clock, a)
    a.store.before = True
    for _ in range(5):
        beats(clock, b)
        a.keeper.beat()
    assert len(a.held) == SLOTS
    assert len(b.held) == SLOTS
    assert not set(a.keeper.epochs().items()) & set(b.keeper.epochs().items())
    a.store.before = False
    a.keeper.beat()
    assert not a.held
    assert a.told[-1] == ("lost", set(range(SLOTS)))
    beats(clock, b, a)
    assert len(a.held) == len(b.held) == SLOTS // 2


def outage(clock: FakeClock, *ones: One) -> None:
    """The database is away for longer than a lease, and then back for those who ask it."""
    for one in ones:
        one.store.before = True
    beats(clock, *ones, rounds=5)
    for one in ones:
        one.store.before = False


def test_after_an_outage_a_living_neighbour_has_a_beat_to_renew(clock: FakeClock) -> None:
    a, b = One("a", clock), One("b", clock)
    beats(clock, a, b, rounds=3)
    before = [a.keeper.epochs(), b.keeper.epochs()]
    told = [list(a.told), list(b.told)]
    outage(clock, a, b)
    a.keeper.beat()
    clock.advance(BEAT_S / 2)
    for one in (a, b):
        one.keeper.pulse()
    b.keeper.beat()
    clock.advance(BEAT_S / 2 + 0.01)
    for one in (a, b):
        one.keeper.beat()
    beats(clock, a, b, rounds=3)
    assert [a.keeper.epochs(), b.keeper.epochs()] == before
    assert [a.told, b.told] == told


def test_who_died_in_an_outage_is_followed_a_beat_later(clock: FakeClock) -> None:
    a, b = One("a", clock), One("b", clock)
    beats(clock, a, b, rounds=3)
    outage(clock, a)
    a.keeper.beat()
    assert len(a.held) == SLOTS // 2
    clock.advance(BEAT_S + 0.01)
    a.keeper.beat()
    assert len(a.held) == SLOTS


def test_what_was_let_go_needs_no_grace(clock: FakeClock) -> None:
    a, b = One("a", clock), One("b", clock)
    beats(clock, a, b, rounds=3)
    outage(clock, a)
    b.store.leave("b")
    a.keeper.beat()
    assert len(a.held) == SLOTS


def test_a_short_loss_of_the_database_delays_no_takeover(clock: FakeClock) -> None:
    a, b = One("a", clock), One("b", clock)
    beats(clock, a, b, rounds=3)
    beats(clock, a, rounds=2)
    a.store.before = True
    a.keeper.beat()
    a.store.before = False
    beats(clock, a, rounds=2)
    assert len(a.held) == SLOTS


def test_an_answer_that_was_lost_changes_nothing(clock: FakeClock) -> None:
    a = One("a", clock)
    a.store.after = True
    beats(clock, a, rounds=2)
    assert not a.held
    a.store.after = False
    beats(clock, a)
    assert len(a.held) == SLOTS


def test_a_frozen_process_gives_up_until_confirmed(clock: FakeClock) -> None:
    a = One("a", clock)
    beats(clock, a)
    clock.advance(60.0)
    # Nobody has run yet since the process goes on, and it is not trusted already.
    assert a.keeper.epochs() == {}
    assert a.probing
    a.keeper.pulse()
    assert not a.probing
    assert not a.held
    a.keeper.beat()
    # Nobody took it meanwhile.
    assert a.keeper.epochs() == dict.fromkeys(range(SLOTS), 1)
    assert a.keeper.status().frozen == 1


def test_a_frozen_process_with_its_database_away_holds_nothing(clock: FakeClock) -> None:
    a = One("a", clock)
    beats(clock, a)
    a.store.before = True
    clock.advance(60.0)
    beats(clock, a, rounds=3)
    assert not a.held
    assert not a.probing


def test_one_that_was_frozen_for_long_finds_another_in_its_place(clock: FakeClock) -> None:
    a, b = One("a", clock), One("b", clock)
    beats(clock, a)
    beats(clock, b, rounds=5)
    assert len(b.held) == SLOTS
    a.keeper.beat()
    assert not a.held
    assert not a.probing


def test_frozen_while_the_database_answers(clock: FakeClock) -> None:
    """The answer was given before the stop, and says nothing of now."""
    a = One("a", clock)
    beats(clock, a)
    a.store.meanwhile = lambda: clock.advance(60.0)
    assert a.keeper.beat() == 0.0
    assert not a.held
    assert not a.probing
    a.store.meanwhile = None
    a.keeper.beat()
    assert len(a.held) == SLOTS


def test_late_by_less_than_half_a_lease_is_nothing(clock: FakeClock) -> None:
    a = One("a", clock)
    beats(clock, a)
    clock.advance(LEASE_S / 2)
    a.keeper.pulse()
    assert len(a.held) == SLOTS
    assert len(a.told) == 1


def test_a_listener_that_fails_is_told_again(clock: FakeClock) -> None:
    a = One("a", clock)
    told: list[set[int]] = []

    def fail(slots: set[int]) -> None:
        told.append(slots)
        if len(told) == 1:
            raise OSError("no such thing")

    a.keeper._on_taken = fail
    beats(clock, a, rounds=3)
    assert told == [set(range(SLOTS))] * 2


def test_the_databases_own_clock() -> None:
    """Without a clock given, leases are in the database's time."""
    store = LeaseStore(lease_s=LEASE_S)
    store.prepare()
    store.renew("a")
    epochs = store.take("a", list(range(SLOTS)))
    assert epochs == dict.fromkeys(range(SLOTS), 1)
    assert store.take("b", list(range(SLOTS))) == {}
    picture = store.renew("b")
    assert picture.living == ["a", "b"]
    assert picture.epochs_of("a") == epochs
    assert not any(one.free for one in picture.slots)
    row = ProbeSlot.objects.get(slot=0)
    assert row.taken_at is not None
    assert row.expires_at is not None
    assert row.expires_at - row.taken_at == timedelta(seconds=LEASE_S)
    LeaseStore(lease_s=-1.0).renew("a")
    assert all(one.free for one in store.renew("b").slots)
    assert store.take("b", [3, 4]) == {3: 2, 4: 2}
    store.release("b", [3])
    assert ProbeSlot.objects.get(slot=3).holder == ""
    assert ProbeSlot.objects.get(slot=4).holder == "b"


def test_dead_checkers_are_forgotten_in_the_end(clock: FakeClock) -> None:
    a, b = One("a", clock), One("b", clock)
    beats(clock, a, b)
    beats(clock, b, rounds=10)
    assert Checker.objects.filter(pk="a").exists()
    clock.advance(3700.0)
    beats(clock, b)
    assert not Checker.objects.filter(pk="a").exists()
