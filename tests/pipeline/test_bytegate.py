"""The byte gate: bodies being read and inflated never hold more than its limit."""

from __future__ import annotations

import random
from functools import partial

import pytest

from pipeline.errors import Saturated, TooLarge
from pipeline.intake.bytegate import ByteGate
from tests.pipeline.rig import run_all


def test_room_is_reserved_grown_and_given_back_once() -> None:
    gate = ByteGate(100)
    with gate.reserve(60) as held:
        held.grow(30)
        assert (gate.held_bytes, held.nbytes) == (90, 90)
        held.release()
        assert gate.held_bytes == 0
    assert gate.held_bytes == 0


def test_the_gate_is_given_back_when_the_reader_fails() -> None:
    gate = ByteGate(100)
    with pytest.raises(OSError, match="reset"), gate.reserve(100):
        raise OSError("connection reset")
    assert gate.held_bytes == 0


def test_a_full_gate_says_come_back_and_keeps_what_was_held() -> None:
    gate = ByteGate(100)
    first, second = gate.reserve(60), gate.reserve(40)
    with pytest.raises(Saturated) as refused:
        gate.reserve(1)
    assert refused.value.retry_after_s >= 1
    with pytest.raises(Saturated):
        second.grow(1)
    assert second.nbytes == 40
    first.release()
    second.grow(60)
    assert gate.held_bytes == 100


def test_what_could_never_fit_is_too_large_and_names_the_limit() -> None:
    gate = ByteGate(100)
    with pytest.raises(TooLarge) as refused:
        gate.reserve(101)
    assert refused.value.limit == "gate_bytes=100"
    held = gate.reserve(50)
    with pytest.raises(TooLarge, match="101 bytes"):
        held.grow(51)
    assert gate.held_bytes == 50


@pytest.mark.concurrency
def test_threads_together_never_pass_the_limit_and_leave_nothing_behind() -> None:
    gate = ByteGate(1_000)
    seen: list[int] = []

    def client(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(300):
            try:
                with gate.reserve(chance.randrange(400)) as held:
                    held.grow(chance.randrange(300))
                    seen.append(gate.held_bytes)
            except Saturated:
                pass

    run_all([partial(client, seed) for seed in range(6)])
    assert gate.held_bytes == 0
    assert max(seen) <= 1_000
