"""What a probe's answer is worth: whether it was slow, and whether the checker itself is at fault.

Runs on the event loop.
"""

from __future__ import annotations

from typing import Protocol

from healthmon.checker.stall import StallWatch
from healthmon.probes.kind import DEGRADED, ERROR_CHARS, OK, VOID, Result
from healthmon.targets.spec import TargetSpec


def blind_after_s(spec: TargetSpec) -> float:
    """So long after its last judged result a target is unknown: a whole window was missed.

    A checker that is merely behind is not that late, and must not add to its own work.
    """
    return 1.5 * spec.interval_s + spec.timeout_s


class Gate(Protocol):
    """What tells whether this checker's network is there; see `healthmon.checker.gate`."""

    def note(self, spec: TargetSpec, result: Result) -> None: ...

    def reason(self, spec: TargetSpec, result: Result) -> str: ...


class Judge:
    def __init__(self, *, stalls: StallWatch, gate: Gate) -> None:
        self._stalls = stalls
        self._gate = gate

    def __call__(self, spec: TargetSpec, result: Result, began_s: float) -> Result:
        """The result as it counts; `began_s` is monotonic."""
        self._gate.note(spec, result)
        slow = spec.degraded_after_ms
        if slow is not None and result.outcome == OK and result.total_ms > slow:
            result.outcome = DEGRADED
            result.error = f"took {result.total_ms:.0f} ms, more than {slow:g} ms"
        if result.outcome == OK:
            return result
        if self._stalls.disturbed(began_s):
            return _void(result, "the checker stood still meanwhile")
        gone = self._gate.reason(spec, result)
        return _void(result, gone) if gone else result


def _void(result: Result, why: str) -> Result:
    result.outcome = VOID
    result.error = f"not judged, as {why}; found: {result.error}"[:ERROR_CHARS]
    return result
