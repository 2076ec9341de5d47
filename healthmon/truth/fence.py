"""Which changes may still move a target's state: the rule of leases and sequence.  Pure.

A change is decided under a lease: a slot, and the epoch that the slot had.  Whoever takes the slot
afterwards raises the epoch, and from then on what the former holder decides must change nothing,
while what it had decided before, and what its log brings late, must not be lost.  When it was
decided is told by the change's own time, which is that of the first result that led to it, *and*
by its arrival in the checker's log: a checker that was frozen in the midst of a row of failures
ends that row after it has thawed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from healthmon.truth.changes import Change

# A change waits for the checker's next flush, and the slot's time is by another machine's clock.
HANDOVER_US = 1_000_000


class Verdict(Enum):
    ALREADY = "already"  # stored before
    FENCED = "fenced"  # decided without a lease: not stored
    SUPERSEDED = "superseded"  # another holder's change has its number: not stored
    LATE = "late"  # history: what followed it is stored already
    APPLY = "apply"


@dataclass(frozen=True, slots=True)
class Lease:
    """What is known of a slot: its epoch, and when its holder took it."""

    epoch: int
    taken_us: int


def verdict(
    change: Change,
    *,
    arrived_us: int,
    lease: Lease | None,
    seq: int,
    epoch: int,
    stored_epoch: int | None,
) -> Verdict:
    """`seq` and `epoch` are those of the target's state; `arrived_us` when the log had the change.

    `stored_epoch` is that of the stored flip with this change's number, None when there is none.
    A slot without a row has never been leased: nothing fences it.
    """
    if stored_epoch == change.epoch:
        return Verdict.ALREADY
    if lease is not None and change.epoch < lease.epoch:
        decided_us = max(change.at_us, arrived_us - HANDOVER_US)
        if decided_us > lease.taken_us:
            return Verdict.FENCED
    if stored_epoch is not None:
        # Two holders have counted on from the same flip, and the other's came first.
        return Verdict.SUPERSEDED
    if change.seq <= seq:
        return Verdict.LATE
    if change.epoch < epoch:
        # The newer holder has counted on from the same flip: this number is no longer free.
        return Verdict.FENCED
    return Verdict.APPLY
