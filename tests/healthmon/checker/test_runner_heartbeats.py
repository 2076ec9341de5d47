"""What no probe has found: the pings of heartbeats, and which of them are old news."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from healthmon.checker.runner import _is_old_news
from healthmon.probes.kind import Result
from healthmon.truth.machine import Memory, Rules, restored
from tests.healthmon.checker.stand import Stand
from tests.healthmon.checker.virtual import EPOCH_US, run


def test_a_heartbeat_that_cannot_be_heard_yet_is_said_to_be_so() -> None:
    stand = Stand()
    passive = dataclasses.replace(stand.kind, probe=None)

    async def main() -> None:
        assert not stand.runner.heard_of(1, EPOCH_US, Result())
        stand.put(1, kind=passive)
        held = dict(stand.epochs)
        stand.epochs.clear()
        assert not stand.runner.heard_of(1, EPOCH_US, Result())
        stand.epochs.update(held)
        assert stand.runner.heard_of(1, EPOCH_US, Result())

    run(stand.clock, main())
    assert stand.statuses(1) == ["up"]


@pytest.mark.parametrize("status", ["down", "unknown"])
def test_a_ping_from_before_it_was_down_recovers_nothing(status: str) -> None:
    stand = Stand()
    passive = dataclasses.replace(stand.kind, probe=None)
    since_us = EPOCH_US + 900_000_000
    memory = Memory(status=status, before="down", seq=4, since_us=since_us)
    rules = Rules(failure_threshold=1, success_threshold=1)

    async def main() -> None:
        stand.put(1, memory, kind=passive, rules=rules)
        assert stand.runner.heard_of(1, since_us - 1, Result(total_ms=1.0))
        assert not stand.changes
        assert not stand.results
        assert stand.runner.heard_of(1, since_us + 1, Result(total_ms=1.0))

    run(stand.clock, main())
    assert stand.statuses() == ["up"]


@pytest.mark.parametrize("status", ["new", "paused", "unknown"])
def test_what_it_was_long_ago_makes_no_ping_old(status: str) -> None:
    """`before` is an unknown one's; whatever else has it set has since been forgotten."""
    since_us = EPOCH_US + 900_000_000
    before = "up" if status == "unknown" else "down"
    memory = Memory(status=status, before=before, seq=4, since_us=since_us)
    assert not _is_old_news(memory, since_us - 1, Result(total_ms=1.0))


def test_a_ping_from_before_a_heartbeat_was_resumed_is_heard() -> None:
    stand = Stand()
    passive = dataclasses.replace(stand.kind, probe=None)
    rules = Rules(failure_threshold=1, success_threshold=1)

    async def main() -> None:
        memory = restored(status="down", since_us=EPOCH_US, seq=4)
        stand.put(1, memory, kind=passive, rules=rules)
        stand.put(1, kind=passive, rules=rules, paused=True)
        await asyncio.sleep(60)
        rung_us = stand.time.now_us()
        await asyncio.sleep(1)
        stand.put(1, kind=passive, rules=rules)
        assert stand.runner.heard_of(1, rung_us, Result(total_ms=1.0))

    run(stand.clock, main())
    assert stand.statuses() == ["paused", "new", "up"]
