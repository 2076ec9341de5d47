"""The room that the sinks of an offer have, asked before there is an offer: whether it would be
refused, how long to wait for that to change, and how much is left.

Request threads only; holds no state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import Saturated
from pipeline.runtime.clock import Clock

if TYPE_CHECKING:
    from pipeline.pipeline import Pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaining:
    """So many records would be taken by the scarcest required sink; it is back at its low mark in
    so many seconds, if nothing else comes."""

    sink: str
    records: int
    reset_s: float


def refusal(targets: tuple[Pipeline, ...], tenant: str) -> Saturated | None:
    """Why an offer would be refused whatever its size."""
    for pipeline in targets:
        if pipeline.spec.required and (refused := pipeline.admission.check(tenant)):
            return refused
    return None


def await_room(
    targets: Callable[[], tuple[Pipeline, ...]],
    records: int,
    nbytes: int,
    *,
    tenant: str,
    timeout_s: float,
    clock: Clock,
) -> Saturated | None:
    """Wait until every required sink has room, at most so long; returns why one has none.

    Nothing is reserved: what a sink had when it was asked may be gone when the offer comes.
    `targets` are asked for anew after each wait, and may raise Refused.
    """
    due = clock.monotonic() + timeout_s
    while True:
        for pipeline in targets():
            if pipeline.spec.required and pipeline.admission.lacks(records, nbytes, tenant=tenant):
                break
        else:
            return None
        refused = pipeline.admission.await_room(
            records, nbytes, tenant=tenant, timeout_s=max(0.0, due - clock.monotonic())
        )
        if refused is not None:
            return refused


def remaining(targets: tuple[Pipeline, ...]) -> Remaining | None:
    """The room of the scarcest required sink that is above its hint mark, if any is."""
    scarcest: Remaining | None = None
    for pipeline in targets:
        if pipeline.spec.required and pipeline.admission.hinting:
            records, reset_s = pipeline.admission.remaining()
            if scarcest is None or records < scarcest.records:
                scarcest = Remaining(sink=pipeline.spec.name, records=records, reset_s=reset_s)
    return scarcest
