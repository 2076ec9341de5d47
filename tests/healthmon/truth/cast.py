"""Targets, slots and changes for the tests of this room."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from healthmon.leases.models import ProbeSlot
from healthmon.targets.models import Target, slot_of
from healthmon.truth import stored
from healthmon.truth.changes import Change, record_of
from healthmon.truth.moments import at
from healthmon.truth.stored import FlipStored
from pipeline.record import Batch, Record
from sinks.handmade import make_batch, make_part

T0_US = 1_790_000_000_000_000
SECOND = 1_000_000
_ids = itertools.count(1)


def when(seconds: float) -> datetime:
    return at(T0_US + round(seconds * SECOND))


def change(
    target: Target | int,
    seq: int,
    move: str,
    seconds: float,
    *,
    epoch: int = 1,
    flapping: bool = False,
    reason: str = "connection refused",
    **more: Any,
) -> Change:
    """`move` is like "up>down"."""
    from_status, to_status = move.split(">")
    target_id = target if isinstance(target, int) else target.pk
    return Change(
        target_id=target_id,
        target=str(target),
        seq=seq,
        from_status=from_status,
        to_status=to_status,
        at_us=T0_US + round(seconds * SECOND),
        reason=reason,
        flapping=flapping,
        slot=slot_of(target_id),
        epoch=epoch,
        checker="checker-1",
        **more,
    )


def batch_of(
    changes: Sequence[Change | Record], *, arrived: float | None = None, log_id: str = "log-1"
) -> Batch:
    """A batch as a checker's log hands it out: it had the changes as soon as they were decided."""
    records = [one if isinstance(one, Record) else record_of(one) for one in changes]
    for record in records:
        record.id = next(_ids)
    if arrived is None:
        arrived_us = max(record.timestamp_us for record in records)
    else:
        arrived_us = T0_US + round(arrived * SECOND)
    part = make_part(records, type="flip", received_us=arrived_us)
    return make_batch([part], number=next(_ids), log_id=log_id, sink="internal-flips")


def lease(target: Target, *, epoch: int, taken: float) -> None:
    ProbeSlot.objects.update_or_create(
        slot=target.slot,
        defaults={"holder": "somebody", "epoch": epoch, "taken_at": when(taken)},
    )


def make_target(name: str = "web", **fields: Any) -> Target:
    return Target.objects.create(name=name, address="http://web.example/", **fields)


@contextmanager
def heard_flips() -> Iterator[list[FlipStored]]:
    """What hooks hear; the application's own hear nothing meanwhile."""
    heard: list[FlipStored] = []
    others = stored._hooks.items()
    for name, _ in others:
        stored.unregister_flip_hook(name)
    stored.register_flip_hook(heard.extend, name="test")
    try:
        yield heard
    finally:
        stored.unregister_flip_hook("test")
        for name, hook in others:
            stored.register_flip_hook(hook, name=name)
