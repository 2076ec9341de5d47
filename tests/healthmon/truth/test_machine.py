"""The machine: small cases exhaustively, all others against a model, and flapping as Icinga's."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from healthmon.truth.machine import (
    DEGRADED,
    DOWN,
    FLAP_SLOTS,
    MAINTENANCE,
    NEW,
    PAUSED,
    UNKNOWN,
    UP,
    Memory,
    Move,
    Rules,
    confirming,
    flap_percent,
    maintenance,
    missed,
    observe,
    pause,
    restored,
    resume,
)

STEADY = Rules(failure_threshold=3, success_threshold=2, flap_high=1000.0, flap_low=1000.0)


def fed(memory: Memory, rules: Rules, outcomes: str, start: int = 0) -> list[Move]:
    """Moves of a row of outcomes, one a second: o ok, d degraded, f failed, v void."""
    words = {"o": "ok", "d": "degraded", "f": "failed", "v": "void"}
    moves = []
    for offset, letter in enumerate(outcomes):
        move = observe(memory, rules, words[letter], start + offset, f"result {offset}")
        if move is not None:
            moves.append(move)
    return moves


def said(moves: list[Move]) -> list[tuple[str, str, int]]:
    return [(move.from_status, move.to_status, move.at_us) for move in moves]


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ("o", [(NEW, UP, 0)]),
        ("ff", []),
        ("fff", [(NEW, DOWN, 0)]),
        ("ddd", [(NEW, DEGRADED, 0)]),
        ("offoff", [(NEW, UP, 0)]),
        ("offf", [(NEW, UP, 0), (UP, DOWN, 1)]),
        ("ofvfvvf", [(NEW, UP, 0), (UP, DOWN, 1)]),  # void interrupts no row
        ("offfo", [(NEW, UP, 0), (UP, DOWN, 1)]),
        ("offffoo", [(NEW, UP, 0), (UP, DOWN, 1), (DOWN, UP, 5)]),
        ("offfofoo", [(NEW, UP, 0), (UP, DOWN, 1), (DOWN, UP, 6)]),
        ("oddd", [(NEW, UP, 0), (UP, DEGRADED, 1)]),
        ("oddf", [(NEW, UP, 0), (UP, DEGRADED, 1)]),
        ("odfff", [(NEW, UP, 0), (UP, DEGRADED, 1), (DEGRADED, DOWN, 2)]),
        ("odddoo", [(NEW, UP, 0), (UP, DEGRADED, 1), (DEGRADED, UP, 4)]),
        ("offfdd", [(NEW, UP, 0), (UP, DOWN, 1), (DOWN, DEGRADED, 4)]),
        ("offfdoo", [(NEW, UP, 0), (UP, DOWN, 1), (DOWN, DEGRADED, 4), (DEGRADED, UP, 5)]),
        ("vvvv", []),
    ],
)
def test_rows_of_results(outcomes: str, expected: list[tuple[str, str, int]]) -> None:
    assert said(fed(Memory(), STEADY, outcomes)) == expected


def test_every_row_of_up_to_seven_results_agrees_with_the_model() -> None:
    for failures, successes in itertools.product((1, 2, 3), (1, 2, 3)):
        rules = Rules(
            failure_threshold=failures, success_threshold=successes, flap_high=1e3, flap_low=1e3
        )
        for length in range(1, 8):
            for letters in itertools.product("odf", repeat=length):
                outcomes = "".join(letters)
                assert said(fed(Memory(), rules, outcomes)) == modelled(outcomes, rules), outcomes


def modelled(outcomes: str, rules: Rules) -> list[tuple[str, str, int]]:
    """The same by looking back over the whole list at each result."""
    status, moves = NEW, []
    for end in range(1, len(outcomes) + 1):
        seen = outcomes[:end]

        def row(letters: str, seen: str = seen) -> int:
            return len(seen) - len(seen.rstrip(letters))

        to = None
        if row("f") >= rules.failure_threshold and status != DOWN:
            to, length = DOWN, row("f")
        elif seen[-1] == "o" and (
            status == NEW or (status != UP and row("o") >= rules.success_threshold)
        ):
            to, length = UP, row("o")
        elif status == DOWN and row("od") >= rules.success_threshold:
            to, length = DEGRADED, row("od")
        elif status in (NEW, UP) and row("fd") >= rules.failure_threshold:
            to, length = DEGRADED, row("fd")
        if to is not None:
            moves.append((status, to, end - length))
            status = to
    return moves


@pytest.mark.parametrize(
    ("before", "outcomes", "expected"),
    [
        ("o", "o", [(UNKNOWN, UP, 100)]),
        ("o", "ff", []),
        ("o", "fff", [(UNKNOWN, DOWN, 100)]),
        ("o", "fo", [(UNKNOWN, UP, 101)]),
        ("o", "ddd", [(UNKNOWN, DEGRADED, 100)]),
        ("fff", "o", []),
        ("fff", "oo", [(UNKNOWN, UP, 100)]),
        ("fff", "f", []),
        ("fff", "fff", [(UNKNOWN, DOWN, 100)]),
        ("fff", "od", [(UNKNOWN, DEGRADED, 100)]),
        ("ddd", "d", [(UNKNOWN, DEGRADED, 100)]),
        ("ddd", "oo", [(UNKNOWN, UP, 100)]),
        ("ddd", "fff", [(UNKNOWN, DOWN, 100)]),
    ],
)
def test_unknown_is_left_by_what_says_enough(
    before: str, outcomes: str, expected: list[tuple[str, str, int]]
) -> None:
    memory = Memory()
    fed(memory, STEADY, before)
    was = memory.status
    move = missed(memory, STEADY, 50, "late")
    assert move is not None
    assert (move.from_status, move.to_status, move.at_us) == (was, UNKNOWN, 50)
    assert missed(memory, STEADY, 51) is None
    assert said(fed(memory, STEADY, outcomes, 100)) == expected


def test_a_failure_before_a_missed_window_counts_no_more() -> None:
    memory = Memory()
    fed(memory, STEADY, "off")
    missed(memory, STEADY, 50)
    assert fed(memory, STEADY, "ff", 60) == []


def test_what_was_unknown_to_another_checker_recovers_by_the_threshold() -> None:
    memory = restored(status=UNKNOWN, since_us=5, seq=4)
    assert fed(memory, STEADY, "o", 10) == []
    [move] = fed(memory, STEADY, "o", 11)
    assert (move.to_status, move.seq) == (UP, 5)


def test_nothing_is_missed_of_one_that_is_not_watched_or_never_was() -> None:
    memory = Memory()
    assert missed(memory, STEADY, 1) is None
    pause(memory, 2)
    assert missed(memory, STEADY, 3) is None


def test_pause_and_resume() -> None:
    memory = Memory()
    fed(memory, STEADY, "off")
    assert pause(memory, 10) == Move(from_status=UP, to_status=PAUSED, at_us=10, seq=2)
    assert pause(memory, 11) is None
    assert fed(memory, STEADY, "ffff", 12) == []
    assert maintenance(memory, True, 13) is None
    assert resume(memory, 20) == Move(from_status=PAUSED, to_status=NEW, at_us=20, seq=3)
    assert resume(memory, 21) is None
    assert said(fed(memory, STEADY, "o", 30)) == [(NEW, UP, 30)]


def test_maintenance_ends_up_when_its_last_result_was_ok_and_new_otherwise() -> None:
    for outcomes, after in (("o", UP), ("fo", UP), ("of", NEW), ("ffff", NEW), ("", NEW)):
        memory = Memory()
        fed(memory, STEADY, "fff")
        move = maintenance(memory, True, 10, "new disks")
        assert move is not None
        assert (move.to_status, move.reason) == (MAINTENANCE, "new disks")
        assert fed(memory, STEADY, outcomes, 11) == []
        ended = maintenance(memory, False, 20, "new disks")
        assert ended is not None
        assert (ended.from_status, ended.to_status, ended.at_us) == (MAINTENANCE, after, 20)
        assert maintenance(memory, False, 21) is None
        assert fed(memory, STEADY, "ff", 22) == []  # what failed inside does not count
        assert memory.failures == 2


def test_a_change_is_never_dated_before_the_one_it_follows() -> None:
    memory = Memory()
    fed(memory, STEADY, "offf", 1_000)
    [move] = fed(memory, STEADY, "oo", 500)  # the clock was put back
    assert move.at_us == 1_001


def test_confirming_while_a_row_may_change_the_status() -> None:
    memory = Memory()
    seen = []
    for outcome in ("ok", "failed", "failed", "failed", "failed", "ok", "ok", "degraded"):
        observe(memory, STEADY, outcome, 1)
        seen.append(confirming(memory))
    assert seen == [False, True, True, False, False, True, False, True]


def test_flapping_is_weighed_and_has_two_marks() -> None:
    assert flap_percent((1 << FLAP_SLOTS) - 1) == pytest.approx(99.0)
    assert flap_percent(1) == pytest.approx(4.0)
    assert flap_percent(1 << (FLAP_SLOTS - 1)) == pytest.approx(5.9)
    rules = Rules(failure_threshold=1, success_threshold=1)
    memory = Memory()
    moves = fed(memory, rules, "ofofofofof")
    assert [move.flapping for move in moves] == [False] * 6 + [True] * 4
    after = fed(memory, rules, "f" * FLAP_SLOTS, 100)
    assert len(after) == 1
    assert (after[0].from_status, after[0].to_status) == (DOWN, DOWN)
    assert (after[0].flapping, after[0].seq) == (False, moves[-1].seq + 1)
    assert memory.since_us == 9  # it has been down since then, all the same


def test_between_the_marks_it_is_what_it_was() -> None:
    """Five changes in twenty results: 25 to 30 percent, by where they are in the window."""
    rising, falling = Memory(), Memory()
    rules = Rules(failure_threshold=9, success_threshold=9)
    fed(rising, rules, "ofofof")
    assert 25 < flap_percent(rising.window) < 30
    assert not rising.flapping
    fed(falling, rules, "ofofofo")
    assert falling.flapping
    while flap_percent(falling.window) > 30:
        fed(falling, rules, "o")
    assert flap_percent(falling.window) > 25
    assert falling.flapping


def test_the_end_of_flapping_that_marked_nothing_is_not_told() -> None:
    rules = Rules(failure_threshold=5, success_threshold=5)
    memory = Memory()
    moves = fed(memory, rules, "o" + "fo" * 10)
    assert memory.flapping
    assert len(moves) == 1
    assert fed(memory, rules, "o" * 30, 100) == []
    assert not memory.flapping


def test_one_that_flapped_elsewhere_stops_after_steady_results() -> None:
    memory = restored(status=UP, since_us=0, seq=9, flapping=True)
    moves = fed(memory, Rules(), "o" * 30)
    assert [(move.to_status, move.seq, move.flapping) for move in moves] == [(UP, 10, False)]


def test_a_pause_ends_flapping() -> None:
    memory = Memory()
    fed(memory, Rules(failure_threshold=1, success_threshold=1), "of" * 8)
    assert memory.flapping
    move = pause(memory, 100)
    assert move is not None
    assert not move.flapping
    assert not memory.window


@given(window=st.integers(0, (1 << FLAP_SLOTS) - 1))
def test_the_newer_of_two_changes_weighs_more(window: int) -> None:
    shifted = window >> 1
    if window & 1 == 0 and window:
        assert flap_percent(shifted) < flap_percent(window)


class Life(RuleBasedStateMachine):
    """Anything that can happen to a target, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory()
        self.asked = Rules()
        self.moves: list[Move] = []
        self.now = 1_000
        self.row: list[tuple[str, int]] = []  # valid results since the row could last begin

    @initialize(failures=st.integers(1, 5), successes=st.integers(1, 5))
    def thresholds(self, failures: int, successes: int) -> None:
        self.asked = Rules(failure_threshold=failures, success_threshold=successes)

    @rule(outcome=st.sampled_from(["ok", "degraded", "failed", "void"]), step=st.integers(0, 9))
    def result(self, outcome: str, step: int) -> None:
        self.now += step
        before = self.memory.status
        if before not in (PAUSED, MAINTENANCE) and outcome != "void":
            self.row.append((outcome, self.now))
        move = observe(self.memory, self.asked, outcome, self.now, "why")
        if before in (PAUSED, MAINTENANCE) or outcome == "void":
            assert move is None
        self.note(move)
        if move is not None and move.to_status == DOWN != move.from_status:
            last = self.row[-self.asked.failure_threshold :]
            assert [one for one, _ in last] == ["failed"] * self.asked.failure_threshold
        if move is not None and move.from_status == DOWN != move.to_status:
            last = self.row[-self.asked.success_threshold :]
            assert len(last) == self.asked.success_threshold
            assert "failed" not in [one for one, _ in last]

    @rule(step=st.integers(0, 9))
    def window_missed(self, step: int) -> None:
        self.now += step
        self.other(missed(self.memory, self.asked, self.now))

    @rule(on=st.booleans())
    def paused(self, on: bool) -> None:
        self.other((pause if on else resume)(self.memory, self.now))

    @rule(on=st.booleans())
    def in_maintenance(self, on: bool) -> None:
        self.other(maintenance(self.memory, on, self.now, "window"))

    def other(self, move: Move | None) -> None:
        if move is not None:
            self.row.clear()
        self.note(move)

    def note(self, move: Move | None) -> None:
        if move is None:
            return
        if self.moves:
            assert move.from_status == self.moves[-1].to_status
            assert move.at_us >= self.moves[-1].at_us
        assert move.seq == len(self.moves) + 1
        assert move.at_us <= self.now
        if move.from_status == move.to_status:
            assert self.moves[-1].flapping
            assert not move.flapping
        self.moves.append(move)

    @invariant()
    def the_memory_is_what_its_moves_say(self) -> None:
        if self.moves:
            assert self.memory.status == self.moves[-1].to_status
            assert self.memory.seq == self.moves[-1].seq
        else:
            assert self.memory.status == NEW
        assert 0 <= self.memory.window < 1 << FLAP_SLOTS
        if self.memory.status in (PAUSED, MAINTENANCE):
            assert not self.memory.flapping
            assert not confirming(self.memory)


Life.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestLife = Life.TestCase
