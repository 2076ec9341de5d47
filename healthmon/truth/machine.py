"""What a target's results make of its status: a pure state machine, without clock, I/O or lock.

The checker's loop owns one Memory a target and hands it each judged result; an answer that is not
None is a change to be written.  Nothing here is shared between threads.

                      ok, or F x not ok (*)
      +-----+  ------------------------------------>  up | degraded | down
      | new |
      +-----+  <---- resume ----  paused   <---- pause ----  any other
         ^
         +------ window ends ---  maintenance  <-- begins --  any but paused
                                      |
                                      +-- ends, and its last result was ok -->  up

             F x not ok, not all failed              F x failed
      +----+ ----------------------> +----------+ ------------------> +------+
      | up | <---------------------- | degraded | <------------------ | down |
      +----+        S x ok           +----------+  S x not failed,    +------+
         |  ^                                       not all ok         ^    |
         |  +------------------------- S x ok -------------------------|----+
         +---------------------------- F x failed ---------------------+

      up | degraded | down  -- a window missed -->  unknown
      unknown  -- as it was before (up: ok, degraded: degraded) --> that, at once
               -- otherwise as from down (S x) and from up (F x) -->  up | degraded | down

(*) F is the failure threshold, S the success threshold, both of results in a row.  A void result
says nothing and interrupts no row.  A confirmed change is dated by the first result of its row,
and never before the change that precedes it.

**Flapping** is found as Icinga finds it: of the last 20 valid results, those that differ from the
one before are weighed (0.8 for the oldest to 1.18 for the newest); above the high mark the target
flaps, at or below the low mark it no longer does.  Changes go on meanwhile, marked `flapping`, so
that they are recorded and alerts held.  When it ends after a marked change, one more move is made
from the status to itself, unmarked: what was held may then be told.
"""

from __future__ import annotations

from typing import Final

import msgspec

NEW: Final = "new"
UP: Final = "up"
DEGRADED: Final = "degraded"
DOWN: Final = "down"
UNKNOWN: Final = "unknown"
PAUSED: Final = "paused"
MAINTENANCE: Final = "maintenance"

OK, FAILED, VOID = "ok", "failed", "void"  # outcomes, besides "degraded"

FLAP_SLOTS = 20
FLAP_HIGH_PERCENT, FLAP_LOW_PERCENT = 30.0, 25.0
_NEWEST = 1 << (FLAP_SLOTS - 1)
# In percent of the window; the bit of the oldest result is the lowest.
_WEIGHTS = tuple((0.8 + 0.02 * i) * 100.0 / FLAP_SLOTS for i in range(FLAP_SLOTS))
_HALF = int("10" * (FLAP_SLOTS // 2), 2)  # the window of one that is known to flap


class Rules(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a target asks for before a change is believed."""

    failure_threshold: int = 3
    success_threshold: int = 2
    flap_high: float = FLAP_HIGH_PERCENT
    flap_low: float = FLAP_LOW_PERCENT


class Memory(msgspec.Struct, kw_only=True, gc=False):
    """What is remembered of one target between its results.

    `seq` counts its changes.  `before` is the status that an unknown one had.  Each row in
    progress has its length and the time of its first result: `failures` of failed ones,
    `troubles` of those not ok, `successes` of those ok, `answers` of those not failed.
    """

    status: str = NEW
    since_us: int = 0
    seq: int = 0
    before: str = NEW
    reason: str = ""
    last_valid_us: int = 0
    failures: int = 0
    failures_us: int = 0
    troubles: int = 0
    troubles_us: int = 0
    successes: int = 0
    successes_us: int = 0
    answers: int = 0
    answers_us: int = 0
    last: str = ""  # the last valid outcome
    window: int = 0  # a bit a result, the newest highest: did it differ from the one before?
    flapping: bool = False
    told_flapping: bool = False  # a change was marked since it began


class Move(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A change of status, the target's `seq`th.  From a status to itself: it flaps no longer."""

    from_status: str
    to_status: str
    at_us: int
    seq: int
    reason: str = ""
    flapping: bool = False


def restored(
    *,
    status: str,
    since_us: int,
    seq: int,
    before: str = DOWN,
    reason: str = "",
    flapping: bool = False,
) -> Memory:
    """The memory of a target that another checker has watched; rows begin anew.

    Of an unknown one whose status `before` is not known the worst is assumed.
    """
    return Memory(
        status=status,
        since_us=since_us,
        seq=seq,
        before=before if status == UNKNOWN else status,
        reason=reason,
        flapping=flapping,
        told_flapping=flapping,
        window=_HALF if flapping else 0,
    )


def observe(
    memory: Memory, rules: Rules, outcome: str, at_us: int, reason: str = ""
) -> Move | None:
    """Take in one result."""
    if outcome == OK and memory.status == UP and not memory.window and memory.last == OK:
        memory.last_valid_us = at_us
        return None
    if outcome == VOID or memory.status == PAUSED:
        return None
    memory.last_valid_us = at_us
    if memory.status == MAINTENANCE:
        memory.last = outcome
        return None
    _flap(memory, rules, outcome)
    _count(memory, outcome, at_us)
    return _judged(memory, rules, outcome, reason) or _settled(memory, at_us)


def missed(memory: Memory, rules: Rules, at_us: int, reason: str = "") -> Move | None:
    """Nothing is known of it since `at_us`: probes were not made, or could not be judged."""
    if memory.status not in (UP, DEGRADED, DOWN):
        return None
    memory.before = memory.status
    _forget_rows(memory)
    return _move(memory, UNKNOWN, at_us, reason)


def pause(memory: Memory, at_us: int, reason: str = "") -> Move | None:
    if memory.status == PAUSED:
        return None
    _forget(memory)
    return _move(memory, PAUSED, at_us, reason)


def resume(memory: Memory, at_us: int, reason: str = "") -> Move | None:
    """Watch it again, as one of which nothing is known."""
    if memory.status != PAUSED:
        return None
    _forget(memory)
    return _move(memory, NEW, at_us, reason)


def maintenance(memory: Memory, on: bool, at_us: int, title: str = "") -> Move | None:
    """A window begins or ends.  Results inside it are taken in and change nothing."""
    if on:
        if memory.status in (PAUSED, MAINTENANCE):
            return None
        _forget(memory)
        return _move(memory, MAINTENANCE, at_us, title)
    if memory.status != MAINTENANCE:
        return None
    after = UP if memory.last == OK else NEW
    if after == NEW:
        _forget(memory)
    return _move(memory, after, at_us, title)


def confirming(memory: Memory) -> bool:
    """A row is in progress that may change the status: probe again soon."""
    status = memory.status
    if status in (UP, NEW):
        return memory.troubles > 0
    if status == DOWN:
        return memory.answers > 0
    if status == DEGRADED:
        return memory.failures > 0 or memory.successes > 0
    return status == UNKNOWN and (memory.troubles > 0 or memory.answers > 0)


def flap_percent(window: int) -> float:
    """How much of the window is change, the newer the heavier."""
    return sum(weight for i, weight in enumerate(_WEIGHTS) if window >> i & 1)


def _flap(memory: Memory, rules: Rules, outcome: str) -> None:
    changed = memory.last != outcome and memory.last != ""
    memory.last = outcome
    if not memory.window and not changed:
        if memory.flapping:
            memory.flapping = False
        return
    memory.window = memory.window >> 1 | (_NEWEST if changed else 0)
    mark = rules.flap_low if memory.flapping else rules.flap_high
    memory.flapping = flap_percent(memory.window) > mark


def _count(memory: Memory, outcome: str, at_us: int) -> None:
    if outcome == OK:
        memory.failures = memory.troubles = 0
        if not memory.successes:
            memory.successes_us = at_us
        memory.successes += 1
    else:
        memory.successes = 0
        if not memory.troubles:
            memory.troubles_us = at_us
        memory.troubles += 1
    if outcome == FAILED:
        memory.answers = 0
        if not memory.failures:
            memory.failures_us = at_us
        memory.failures += 1
    else:
        memory.failures = 0
        if not memory.answers:
            memory.answers_us = at_us
        memory.answers += 1


def _judged(memory: Memory, rules: Rules, outcome: str, reason: str) -> Move | None:
    status = memory.status
    known_as = memory.before if status == UNKNOWN else status
    if status != DOWN and memory.failures >= rules.failure_threshold:
        return _move(memory, DOWN, memory.failures_us, reason)
    if outcome == OK:
        if status == UP:
            return None
        if known_as in (NEW, UP) or memory.successes >= rules.success_threshold:
            return _move(memory, UP, memory.successes_us, reason)
    if status == DEGRADED:
        return None
    if status == UNKNOWN and known_as == outcome:  # degraded, as it was
        return _move(memory, DEGRADED, memory.troubles_us, reason)
    if known_as == DOWN:
        enough = memory.answers >= rules.success_threshold
        return _move(memory, DEGRADED, memory.answers_us, reason) if enough else None
    enough = memory.troubles >= rules.failure_threshold
    return _move(memory, DEGRADED, memory.troubles_us, reason) if enough else None


def _settled(memory: Memory, at_us: int) -> Move | None:
    """The end of flapping, when changes were marked with it."""
    if memory.flapping or not memory.told_flapping:
        return None
    memory.told_flapping = False
    memory.seq += 1
    return Move(
        from_status=memory.status,
        to_status=memory.status,
        at_us=max(at_us, memory.since_us),
        seq=memory.seq,
        reason="no longer flapping",
    )


def _move(memory: Memory, to_status: str, at_us: int, reason: str) -> Move:
    move = Move(
        from_status=memory.status,
        to_status=to_status,
        at_us=max(at_us, memory.since_us),
        seq=memory.seq + 1,
        reason=reason,
        flapping=memory.flapping,
    )
    memory.status, memory.since_us, memory.seq = to_status, move.at_us, move.seq
    memory.reason = reason
    memory.told_flapping = memory.flapping
    return move


def _forget_rows(memory: Memory) -> None:
    memory.failures = memory.troubles = memory.successes = memory.answers = 0


def _forget(memory: Memory) -> None:
    """What was found before no longer says anything."""
    _forget_rows(memory)
    memory.last, memory.window, memory.flapping = "", 0, False
    memory.before = NEW
