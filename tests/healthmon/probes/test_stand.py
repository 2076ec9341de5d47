"""The stand itself: what it takes for a probe that holds the loop, and what for a slow machine."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.healthmon.probes import stand

HELD_S = stand.SLOW_CALLBACK_S + 1


async def steps() -> None:
    await asyncio.sleep(0)


def test_asyncio_says_of_slow_steps_what_the_stand_listens_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with asyncio.Runner(debug=True) as runner:
        runner.get_loop().slow_callback_duration = 0.0
        runner.run(steps())
    said = [one for one in caplog.records if one.name == "asyncio" and one.msg == stand.SLOW_STEP]
    assert said
    assert isinstance(said[0].args, tuple)
    assert isinstance(said[0].args[1], float)


@pytest.mark.parametrize(
    ("waited_s", "blocks", "is_held"),
    [(0.0, 0, True), (0.9, 0, True), (1.1, 0, False), (0.0, 1, False)],
    ids=["at rest", "hardly delayed", "starved", "reading"],
)
def test_a_step_is_slow_by_what_it_does_and_not_by_what_the_machine_does(
    monkeypatch: pytest.MonkeyPatch, waited_s: float, blocks: int, is_held: bool
) -> None:
    """Of two threads one waited before already, and one is new: both may have had the lock."""
    half_ns = int(waited_s * 1e9 / 2)
    seen = iter(
        [
            stand._Machine({"1": 10**12}, 7),
            stand._Machine({"1": 10**12 + half_ns, "2": half_ns}, 7 + blocks),
        ]
    )
    monkeypatch.setattr(stand, "_machine", lambda: next(seen))

    async def slow() -> None:
        logging.getLogger("asyncio").warning(stand.SLOW_STEP, "<a step>", HELD_S)

    if is_held:
        with pytest.raises(AssertionError, match="a step"):
            stand.on_loop(slow)
    else:
        stand.on_loop(slow)
