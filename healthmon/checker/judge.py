"""What a probe's answer is worth: its deadline, its slowness, whether it is the checker's fault.

Runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from healthmon.checker.stall import StallWatch
from healthmon.probes.kind import DEGRADED, ERROR_CHARS, FAILED, OK, VOID, Result
from healthmon.probes.tools import Tools
from healthmon.targets.spec import TargetSpec


def late_after_s(spec: TargetSpec) -> float:
    """A probe that begins so long after it was due has missed its window."""
    return max(spec.interval_s / 2, 2.0)


async def limited(spec: TargetSpec, tools: Tools) -> Result:
    """One probe within its total deadline; whatever goes wrong in it is the target's failure."""
    probe, request = spec.kind.probe if spec.kind is not None else None, spec.request
    if probe is None or request is None:
        raise ValueError(f"target {spec.name!r} cannot be probed: {spec.broken or 'it is passive'}")
    try:
        async with asyncio.timeout(spec.timeout_s):
            return await probe(request, tools)
    except TimeoutError:
        return Result(
            outcome=FAILED,
            error=f"no complete answer within {spec.timeout_s:g} s",
            total_ms=spec.timeout_s * 1000,
        )
    except Exception as error:
        return Result(
            outcome=FAILED, error=f"the probe failed: {type(error).__name__}"[:ERROR_CHARS]
        )


class Judge:
    """`network_gone` says why this checker's network cannot be trusted, "" when it can."""

    def __init__(
        self, *, stalls: StallWatch, network_gone: Callable[[TargetSpec, Result], str]
    ) -> None:
        self._stalls = stalls
        self._network_gone = network_gone

    def __call__(self, spec: TargetSpec, result: Result, began_s: float) -> Result:
        """The result as it counts; `began_s` is monotonic."""
        slow = spec.degraded_after_ms
        if slow is not None and result.outcome == OK and result.total_ms > slow:
            result.outcome = DEGRADED
            result.error = f"took {result.total_ms:.0f} ms, more than {slow:g} ms"
        if result.outcome == OK:
            return result
        if self._stalls.disturbed(began_s):
            return _void(result, "the checker stood still meanwhile")
        gone = self._network_gone(spec, result)
        return _void(result, gone) if gone else result


def _void(result: Result, why: str) -> Result:
    result.outcome = VOID
    result.error = f"not judged, as {why}; found: {result.error}"[:ERROR_CHARS]
    return result
