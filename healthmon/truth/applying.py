"""What a batch of changes does to states and incidents: decided in memory, written by `store`.

Belongs to the thread whose transaction it is.  An incident opens when its target is confirmed
down; it closes with recovery, be it to degraded only, and also when a pause or a maintenance
window begins, for nobody watches any longer what it was about.  It stays open while the target is
unknown: nothing says that it is over, and down again is the same incident.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from healthmon.targets.models import Target
from healthmon.truth.changes import Change
from healthmon.truth.machine import DEGRADED, DOWN, MAINTENANCE, NEW, PAUSED, UP
from healthmon.truth.models import Flip, Incident, IncidentEntry, TargetState
from healthmon.truth.moments import at
from healthmon.truth.stored import FlipStored

CLOSING = frozenset({UP, DEGRADED, PAUSED, MAINTENANCE, NEW})
REASON_CHARS = 500


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What is to be written."""

    flips: list[Flip] = field(default_factory=list)
    states: dict[int, TargetState] = field(default_factory=dict)
    opened: list[Incident] = field(default_factory=list)
    closed: list[Incident] = field(default_factory=list)  # of those that were open before
    entries: list[IncidentEntry] = field(default_factory=list)
    told: list[FlipStored] = field(default_factory=list)


class Applying:
    """Takes in changes one after another, those of a target in their order."""

    def __init__(
        self,
        *,
        targets: Mapping[int, Target],
        states: Mapping[int, TargetState],
        open_incidents: Iterable[Incident],
    ) -> None:
        self._targets = targets
        self._states = states
        self._open = {incident.target_id: incident for incident in open_incidents}
        self.outcome = Outcome()

    def late(self, change: Change) -> None:
        """One that others have overtaken: history only."""
        self.outcome.flips.append(flip_of(change))

    def apply(self, change: Change) -> None:
        state = self._states[change.target_id]
        was_flapping = state.flapping
        self.outcome.flips.append(flip_of(change))
        self._move(state, change)
        incident = self._open.get(change.target_id)
        opened = closed = False
        if change.to_status == DOWN and incident is None:
            incident, opened = self._begin(change), True
        elif incident is not None and change.to_status in CLOSING:
            self._end(incident, change)
            closed = True
        elif incident is not None:
            self._line(incident, change, "flip")
        self.outcome.told.append(
            FlipStored(
                change=change,
                target=self._targets[change.target_id],
                incident=incident,
                opened=opened,
                closed=closed,
                was_flapping=was_flapping,
            )
        )

    def blame(self, parents: Mapping[int, int]) -> None:
        """Name the parents that were down when the incidents opened."""
        for incident in self.outcome.opened:
            incident.suppressed_by_id = parents.get(incident.target_id)

    def _move(self, state: TargetState, change: Change) -> None:
        if change.from_status != change.to_status:
            state.since = at(change.at_us)
            state.reason = reason_of(change)
        state.status = change.to_status
        state.seq, state.epoch = change.seq, change.epoch
        state.flapping = change.flapping
        if change.cert_expires_us:
            state.cert_expires_at = at(change.cert_expires_us)
        self.outcome.states[change.target_id] = state

    def _begin(self, change: Change) -> Incident:
        target = self._targets[change.target_id]
        incident = Incident(
            target=target,
            opened_at=at(change.at_us),
            opened_seq=change.seq,
            cause=reason_of(change),
            severity=target.severity,
        )
        self._open[change.target_id] = incident
        self.outcome.opened.append(incident)
        self._line(incident, change, "opened")
        return incident

    def _end(self, incident: Incident, change: Change) -> None:
        incident.closed_at = max(at(change.at_us), incident.opened_at)
        del self._open[change.target_id]
        if incident.pk is not None:
            self.outcome.closed.append(incident)
        self._line(incident, change, "closed")

    def _line(self, incident: Incident, change: Change, kind: str) -> None:
        self.outcome.entries.append(entry_of(incident, change, kind))


def flip_of(change: Change) -> Flip:
    return Flip(
        target_id=change.target_id,
        seq=change.seq,
        from_status=change.from_status,
        to_status=change.to_status,
        at=at(change.at_us),
        reason=reason_of(change),
        flapping=change.flapping,
        epoch=change.epoch,
        checker=change.checker.replace("\x00", "\ufffd")[:64],
    )


def entry_of(incident: Incident, change: Change, kind: str) -> IncidentEntry:
    return IncidentEntry(incident=incident, at=at(change.at_us), kind=kind, text=line_of(change))


def line_of(change: Change) -> str:
    reason = reason_of(change)
    if change.from_status == change.to_status:
        return reason
    return f"{change.from_status} -> {change.to_status}" + (f": {reason}" if reason else "")


def reason_of(change: Change) -> str:
    """As both databases take it."""
    return change.reason.replace("\x00", "\ufffd")[:REASON_CHARS]
