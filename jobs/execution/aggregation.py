"""What a job's steps add up to: it goes on, it succeeded, or it is dead.  Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.states import DEAD, STEP_FAILED, STEP_SUCCEEDED, SUCCEEDED
from jobs.store.protocol import StepRecord
from jobs.types.models import ALL, ANY, COLLECT, QUORUM
from jobs.types.spec import TypeSpec


def decided(spec: TypeSpec, records: Mapping[str, StepRecord]) -> str | None:
    """`succeeded`, `dead`, or None while that depends on steps that have not ended."""
    total = len(spec.steps)
    states = [records[step.name].state for step in spec.steps if step.name in records]
    succeeded, failed = states.count(STEP_SUCCEEDED), states.count(STEP_FAILED)
    if spec.aggregation == COLLECT:
        if succeeded + failed < total:
            return None
        return SUCCEEDED if succeeded or not total else DEAD
    needed = needs(spec)
    if succeeded >= needed:
        return SUCCEEDED
    return DEAD if total - failed < needed else None


def needs(spec: TypeSpec) -> int:
    """How many steps must succeed.  Raises ValueError where the type makes no sense."""
    total = len(spec.steps)
    if spec.aggregation == ALL:
        return total
    if spec.aggregation in (ANY, COLLECT):
        return min(1, total)
    if spec.aggregation == QUORUM and spec.quorum is not None and 1 <= spec.quorum <= total:
        return spec.quorum
    raise ValueError(f"type {spec.name}: {spec.aggregation} {spec.quorum} of {total} steps")


def waits_for_stages(spec: TypeSpec) -> bool:
    """Whether a stage begins only when those before it have ended.

    Where some of the steps suffice they stand in for each other: the next stage is tried in the
    same attempt, though one of an earlier stage is yet to be called again.
    """
    return spec.aggregation in (ALL, COLLECT)


def result(spec: TypeSpec, records: Mapping[str, StepRecord]) -> dict[str, Any]:
    """What the steps brought, with what failed beside it."""
    ended = [records[step.name] for step in spec.steps if step.name in records]
    return {
        "steps": {one.name: one.result for one in ended if one.state == STEP_SUCCEEDED},
        "failed": {one.name: one.error for one in ended if one.state == STEP_FAILED},
    }


def summary(spec: TypeSpec, records: Mapping[str, StepRecord]) -> str:
    """The story of a decision in a sentence."""
    states = [records[step.name].state for step in spec.steps if step.name in records]
    text = f"{states.count(STEP_SUCCEEDED)} of {len(spec.steps)} steps succeeded"
    if failed := states.count(STEP_FAILED):
        text += f", {failed} failed"
    return text
