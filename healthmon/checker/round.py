"""One round: every target that this checker can have is probed once, stored, and told of.

For cron jobs and for a look by hand.  Targets that another checker holds are its own to probe.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from healthmon.checker.process import CheckerProcess
from healthmon.probes.kind import FAILED, Result
from healthmon.targets.models import SLOTS

logger = logging.getLogger(__name__)

# Long enough for a lease of a checker that has died to end.
TAKE_S = 12.0
POLL_S = 0.05


async def probe_once(*, said: Callable[[str, Result], None]) -> bool:
    """Returns whether any probe failed."""
    process = CheckerProcess()
    failed = False

    def heard(name: str, result: Result) -> None:
        nonlocal failed
        failed = failed or result.outcome == FAILED
        said(name, result)

    process.make(scheduled=False, heard=heard)
    process.start()
    try:
        await _until(lambda: len(process.keeper.epochs()) == SLOTS, TAKE_S)
        held = process.keeper.epochs()
        if len(held) < SLOTS:
            logger.warning(
                "another checker runs: only what it leaves is probed here",
                extra={"slots": len(held)},
            )
        if held:
            process.follower.nudge()
            await _until(lambda: process.follower.applied == held, TAKE_S)
            process.runner.all_now()
            await _until(lambda: process.runner.in_flight + process.runner.due == 0, None)
    finally:
        await process.end(1.0)
    return failed


async def _until(holds: Callable[[], bool], seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not holds():
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        return
