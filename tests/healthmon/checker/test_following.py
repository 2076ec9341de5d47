"""The rows as the checker follows them: what comes, changes and goes, by slots and epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError

from healthmon.checker.follower import Follower
from healthmon.checker.loader import Loader
from healthmon.checker.windows import Windows
from healthmon.models import Flip, MaintenanceWindow, Tag, Target, TargetState
from healthmon.probes.kind import Result
from healthmon.targets.models import slot_of, touch
from tests.healthmon.checker.stand import Stand
from tests.healthmon.checker.virtual import EPOCH_US, Time

pytestmark = pytest.mark.django_db

ALL = dict.fromkeys(range(64), 1)


def _target(name: str = "web", **fields: Any) -> Target:
    fields = {"kind": "tcp", "address": "127.0.0.1:9", **fields}
    return Target.objects.create(name=name, **fields)


def _ids(specs: list[Any]) -> set[int]:
    return {spec.id for spec in specs}


def test_the_first_look_finds_all_and_the_second_nothing() -> None:
    targets = [_target(f"t{n}") for n in range(5)]
    loader = Loader()
    assert loader.follow(ALL) == set()
    assert _ids(loader.poll().specs) == {one.pk for one in targets}
    news = loader.poll()
    assert (news.specs, news.removed, news.states, news.windows) == ([], set(), {}, None)


def test_a_quiet_look_costs_three_small_queries(django_assert_num_queries: Any) -> None:
    for n in range(20):
        _target(f"t{n}")
    loader = Loader()
    loader.follow(ALL)
    loader.poll()
    with django_assert_num_queries(4):  # all stamps are compared in every other
        loader.poll()
    with django_assert_num_queries(3):
        loader.poll()


def test_a_change_that_hides_behind_a_later_stamp_is_found() -> None:
    one, two = _target("one"), _target("two")
    loader = Loader()
    loader.follow(ALL)
    loader.poll()
    stamp = Target.objects.get(pk=two.pk).updated_at - timedelta(hours=1)
    Target.objects.filter(pk=one.pk).update(paused=True, updated_at=stamp)
    found = loader.poll().specs + loader.poll().specs
    assert [(spec.id, spec.paused) for spec in found] == [(one.pk, True)]


def _in_bulk(one: Target) -> None:
    Target.objects.filter(pk=one.pk).update(interval_s=5, updated_at=datetime.now(UTC))


def _by_save(one: Target) -> None:
    one.interval_s = 5
    one.save()


def _by_tag(one: Target) -> None:
    one.tags.add(Tag.objects.create(name="x"))
    touch([one.pk])


@pytest.mark.parametrize("change", [_in_bulk, _by_save, _by_tag])
def test_a_change_is_found_alone(change: Callable[[Target], Any]) -> None:
    one, _ = _target("one"), _target("two")
    loader = Loader()
    loader.follow(ALL)
    loader.poll()
    change(one)
    assert _ids(loader.poll().specs) == {one.pk}


def test_a_deleted_target_is_removed_even_as_another_comes() -> None:
    one = _target("one")
    loader = Loader()
    loader.follow(ALL)
    loader.poll()
    gone = one.pk
    one.delete()
    two = _target("two")
    news = loader.poll()
    assert news.removed == {gone}
    assert _ids(news.specs) == {two.pk}


def test_only_targets_of_held_slots_are_followed() -> None:
    targets = [_target(f"t{n}") for n in range(30)]
    held = dict.fromkeys(range(32), 1)
    loader = Loader()
    loader.follow(held)
    ours = {one.pk for one in targets if slot_of(one.pk) in held}
    assert ours
    assert _ids(loader.poll().specs) == ours
    # More slots: the rest comes; fewer: they go; another epoch: gone, and anew.
    assert loader.follow(ALL) == set()
    assert _ids(loader.poll().specs) == {one.pk for one in targets} - ours
    some = slot_of(min(ours))
    moved = {one.pk for one in targets if slot_of(one.pk) == some}
    assert loader.follow(ALL | {some: 2}) == moved
    assert _ids(loader.poll().specs) == moved


def test_a_look_that_failed_half_way_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    one = _target("one")
    TargetState.objects.create(target=one, status="up", seq=3, since=datetime.now(UTC))
    loader = Loader()
    loader.follow(ALL)
    real = Loader._poll_states

    def failing(self: Loader, news: Any) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(Loader, "_poll_states", failing)
    with pytest.raises(OperationalError):
        loader.poll()
    monkeypatch.setattr(Loader, "_poll_states", real)
    news = loader.poll()
    assert _ids(news.specs) == {one.pk}
    assert news.states[one.pk].seq == 3


def test_a_row_that_cannot_be_used_breaks_itself_alone() -> None:
    _target("good")
    _target("bad", kind="no.such.kind")
    _target("worse", options={"nonsense": 1})
    loader = Loader()
    loader.follow(ALL)
    broken = {spec.name: spec.broken for spec in loader.poll().specs}
    assert broken["good"] == ""
    assert "no.such.kind" in broken["bad"]
    assert "nonsense" in broken["worse"]


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf")])
def test_what_is_no_time_breaks_its_own_target_alone(value: float) -> None:
    one, two = _target("one"), _target("two")
    Target.objects.filter(pk=one.pk).update(interval_s=value)
    loader = Loader()
    loader.follow(ALL)
    broken = {spec.id: spec.broken for spec in loader.poll().specs}
    assert broken[one.pk] == f"interval_s is {value}: it must be a number of seconds above 0"
    assert broken[two.pk] == ""


class _Followed:
    """A follower over a stand; it looks at the rows when the test says so, as time stands."""

    def __init__(self, stand: Stand, time: Time) -> None:
        self.stand = stand
        self.time = time
        self.windows = Windows(told=stand.runner.in_window)
        self.follower = Follower(
            runner=stand.runner,
            windows=self.windows,
            epochs=lambda: dict(stand.epochs),
            loop=time.loop,
            now_us=stand.time.now_us,
        )

    def poll(self) -> None:
        self.follower.poll()
        self.time.passes(0)


@pytest.fixture
def followed(stand: Stand) -> Iterator[_Followed]:
    time = Time(stand.clock)
    yield _Followed(stand, time)
    time.close()


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    """Its kind stands in for tcp's, so that rows are probed by the test's script."""
    made = Stand()
    monkeypatch.setattr("healthmon.targets.options.kind_of", lambda name: made.kind)
    monkeypatch.setattr("healthmon.targets.options.decode_options", lambda cls, values: cls())
    return made


def test_a_target_goes_on_from_its_stored_state(stand: Stand, followed: _Followed) -> None:
    one = _target("one", interval_s=10)
    TargetState.objects.create(target=one, status="down", seq=4, since=datetime.now(UTC))

    followed.poll()
    followed.time.passes(30)

    assert [(c.from_status, c.to_status, c.seq) for c in stand.changes] == [("down", "up", 5)]


def test_a_lease_that_comes_back_unchanged_leaves_no_gap_in_what_is_known(
    stand: Stand, followed: _Followed
) -> None:
    one = _target("one", interval_s=10)
    TargetState.objects.create(
        target=one, status="up", seq=1, since=datetime.fromtimestamp(EPOCH_US / 1e6, UTC)
    )

    followed.poll()
    followed.time.passes(25)
    epochs = dict(stand.epochs)
    stand.epochs.clear()
    followed.poll()
    assert stand.runner.entries == {}
    followed.time.passes(60)
    stand.epochs.update(epochs)
    followed.poll()
    followed.time.passes(20)

    assert stand.statuses(one.pk) == ["unknown", "up"]
    assert [change.seq for change in stand.changes] == [2, 3]


def test_a_takeover_begins_with_the_state_as_stored_and_no_alarm(
    stand: Stand, followed: _Followed
) -> None:
    one = _target("one", interval_s=10)
    TargetState.objects.create(target=one, status="up", seq=1, since=datetime.now(UTC))

    followed.poll()
    followed.time.passes(25)
    stand.epochs.clear()
    followed.poll()
    followed.time.passes(60)
    # Somebody else had it, and found it down.
    TargetState.objects.filter(pk=one.pk).update(status="down", seq=2)
    stand.epochs.update(dict.fromkeys(range(64), 3))
    followed.poll()
    followed.time.passes(20)

    assert [(c.from_status, c.to_status, c.seq, c.epoch) for c in stand.changes] == [
        ("down", "up", 3, 3)
    ]


def test_what_was_up_before_it_was_unknown_is_up_at_the_first_success(
    stand: Stand, followed: _Followed
) -> None:
    one = _target("one", interval_s=10, success_threshold=5)
    at = datetime.fromtimestamp(EPOCH_US / 1e6, UTC)
    TargetState.objects.create(target=one, status="unknown", seq=2, since=at)
    for seq, (before, after) in enumerate((("new", "up"), ("up", "unknown")), 1):
        Flip.objects.create(target=one, seq=seq, from_status=before, to_status=after, at=at)
    followed.poll()
    followed.time.passes(11)
    assert stand.statuses(one.pk) == ["up"]


def test_a_window_opens_and_closes_for_those_it_covers(stand: Stand, followed: _Followed) -> None:
    tag = Tag.objects.create(name="db")
    one, two = _target("one", interval_s=10), _target("two", interval_s=10)
    one.tags.add(tag)
    begins = datetime.fromtimestamp(stand.clock.time_us() / 1e6, UTC) + timedelta(seconds=60)
    window = MaintenanceWindow.objects.create(title="disks", starts_at=begins, duration_s=60)
    window.tags.add(tag)

    followed.poll()
    for _ in range(180):
        followed.time.passes(1)
        followed.follower.beat()

    assert stand.statuses(one.pk) == ["up", "maintenance", "up"]
    assert stand.statuses(two.pk) == ["up"]
    opened = next(c for c in stand.changes if c.to_status == "maintenance")
    assert abs(opened.at_us / 1e6 - begins.timestamp()) < 2


def test_a_database_that_is_away_changes_nothing(
    stand: Stand, followed: _Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = _target("one", interval_s=10)

    followed.poll()

    def away(self: Loader) -> Any:
        raise OperationalError("the server closed the connection")

    monkeypatch.setattr(Loader, "poll", away)
    for _ in range(10):
        followed.poll()
        followed.time.passes(10)

    assert len(stand.began[one.pk]) >= 10


def test_when_a_certificate_ends_is_written_to_its_row(stand: Stand, followed: _Followed) -> None:
    one = _target("one", interval_s=10)
    TargetState.objects.create(target=one, status="up", seq=1, since=datetime.now(UTC))
    expires_us = EPOCH_US + 86_400_000_000
    stand.answer = lambda _: Result(total_ms=1.0, cert_expires_us=expires_us)

    object.__setattr__(stand.heard, "certificate", followed.follower.certificate)
    followed.poll()
    followed.time.passes(12)
    followed.poll()

    stored = TargetState.objects.get(pk=one.pk).cert_expires_at
    assert stored is not None
    assert stored.timestamp() * 1e6 == expires_us
