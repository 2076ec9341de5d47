"""Which runners are dead, by the observer's own clock."""

from __future__ import annotations

from jobs.running.watch import Watch


def watch() -> Watch:
    return Watch(own="me", lease_s=10.0)


def test_a_runner_whose_beats_stand_still_for_a_lease_is_dead() -> None:
    seen = watch()
    assert seen.look({"me": 1, "a": 5}, 100.0) == {}
    for now in (103.0, 106.0, 109.9):
        assert seen.look({"me": 1, "a": 5}, now) == {}
    assert seen.look({"me": 1, "a": 5}, 110.0) == {"a": 5}, "and never oneself"


def test_every_beat_is_a_new_lease() -> None:
    seen = watch()
    for number in range(20):
        assert seen.look({"a": number}, 100.0 + 4 * number) == {}


def test_whoever_was_held_up_itself_begins_anew() -> None:
    seen = watch()
    seen.look({"a": 5}, 100.0)
    seen.look({"a": 5}, 104.0)
    # The whole machine stood still: the others could not beat either.
    assert seen.look({"a": 5}, 160.0) == {}
    for now in (164.0, 168.0):
        assert seen.look({"a": 5}, now) == {}
    assert seen.look({"a": 5}, 170.0) == {"a": 5}


def test_one_that_left_and_came_back_is_looked_at_anew() -> None:
    seen = watch()
    seen.look({"a": 5}, 100.0)
    seen.look({}, 104.0)
    for now in (108.0, 112.0, 116.0):
        assert seen.look({"a": 5}, now) == {}
    assert seen.look({"a": 5}, 118.0) == {"a": 5}
