"""Changes into the control database: flips, states and incidents in one transaction, in bulk.

Runs on the flips sink's worker threads, in whichever process delivers a checker's log.

What makes it exactly once is the flip's own key, target and seq, under the lock of the target's
state row (on SQLite, under the one writer's): whoever delivers the same change again waits for
that row and then finds the flip, or a fence.  A proof per batch would add nothing: it would not
tell the same change in the log of a second checker, and every change of a batch can be told alone.

Slots are read without a lock.  A takeover that commits between the reading and this transaction's
end makes no difference: what is decided by then was decided before it, and is let through by the
rule for late logs; who comes first at the state's row is settled there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from django.db import connection, transaction

from healthmon.leases.models import ProbeSlot
from healthmon.targets.models import Target, slot_of
from healthmon.truth.applying import Applying, Outcome
from healthmon.truth.changes import Change
from healthmon.truth.fence import Lease, Verdict, verdict
from healthmon.truth.late import rewrite
from healthmon.truth.models import Flip, Incident, IncidentEntry, TargetState
from healthmon.truth.moments import us_of
from healthmon.truth.parents import down_parents
from healthmon.truth.stored import tell_hooks
from pipeline.errors import RetryableError

# Longer than any pause between two statements, shorter than the patience of those who wait.
IDLE_MS = 10_000


@dataclass(frozen=True, slots=True)
class Arrived:
    """A change, and when its checker's log took it."""

    change: Change
    arrived_us: int


@dataclass(slots=True)
class Tally:
    """What became of a batch's changes."""

    stored: Counter[str] = field(default_factory=Counter)  # by the status they lead to
    already: int = 0
    fenced: int = 0
    superseded: list[Change] = field(default_factory=list)
    gone: int = 0  # their targets are


def keep(arrivals: Sequence[Arrived]) -> Tally:
    """Store them all, or none; hooks are told inside."""
    with transaction.atomic(durable=True):
        _bound_silence()
        return _Keeping(arrivals).run()


def _bound_silence() -> None:
    """Should this side vanish unheard in the midst of it, the rows are not locked for hours."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL idle_in_transaction_session_timeout = {IDLE_MS}")


class _Keeping:
    """One transaction's work."""

    def __init__(self, arrivals: Sequence[Arrived]) -> None:
        self._arrivals = sorted(arrivals, key=lambda one: (one.change.target_id, one.change.seq))
        self._tally = Tally()

    def run(self) -> Tally:
        asked = sorted({one.change.target_id for one in self._arrivals})
        targets = {target.pk: target for target in Target.objects.filter(pk__in=asked)}
        states = _locked_states([pk for pk in asked if pk in targets])
        if not states:
            self._tally.gone = len(self._arrivals)
            return self._tally
        applying = Applying(
            targets=targets,
            states=states,
            open_incidents=Incident.objects.filter(target__in=states, closed_at=None),
        )
        late = self._judge(applying, states)
        outcome = applying.outcome
        if outcome.opened:
            statuses = {pk: state.status for pk, state in states.items()}
            down = [incident.target_id for incident in outcome.opened]
            applying.blame(down_parents(down, statuses=statuses))
        _write(outcome)
        for target_id, changes in groupby(late, key=lambda change: change.target_id):
            rewrite(targets[target_id], list(changes))
        if outcome.told:
            tell_hooks(outcome.told)
        return self._tally

    def _judge(self, applying: Applying, states: dict[int, TargetState]) -> list[Change]:
        """Hand on what counts; returns the late ones."""
        leases = _leases({slot_of(pk) for pk in states})
        stored = self._stored(states)
        late: list[Change] = []
        for one in self._arrivals:
            change, state = one.change, states.get(one.change.target_id)
            if state is None:
                self._tally.gone += 1
                continue
            said = verdict(
                change,
                arrived_us=one.arrived_us,
                lease=leases.get(slot_of(change.target_id)),
                seq=state.seq,
                epoch=state.epoch,
                stored_epoch=stored.get((change.target_id, change.seq)),
            )
            if said is Verdict.ALREADY:
                self._tally.already += 1
                continue
            if said is Verdict.FENCED:
                self._tally.fenced += 1
                continue
            if said is Verdict.SUPERSEDED:
                self._tally.superseded.append(change)
                continue
            stored[change.target_id, change.seq] = change.epoch
            self._tally.stored[change.to_status] += 1
            if said is Verdict.LATE:
                applying.late(change)
                late.append(change)
            else:
                applying.apply(change)
        return late

    def _stored(self, states: dict[int, TargetState]) -> dict[tuple[int, int], int]:
        """The numbers of changes that are there, with the epochs of the flips that have them.

        None is there whose number the state has not reached.
        """
        asked = {
            (one.change.target_id, one.change.seq)
            for one in self._arrivals
            if one.change.target_id in states and one.change.seq <= states[one.change.target_id].seq
        }
        if not asked:
            return {}
        found = Flip.objects.filter(
            target__in={pk for pk, _ in asked}, seq__in={seq for _, seq in asked}
        )
        return {
            (target_id, seq): epoch
            for target_id, seq, epoch in found.values_list("target_id", "seq", "epoch")
            if (target_id, seq) in asked
        }


def _locked_states(target_ids: list[int]) -> dict[int, TargetState]:
    """The state rows, held until the transaction ends; made where there are none."""
    states = _lock(target_ids)
    missing = [pk for pk in target_ids if pk not in states]
    if missing:
        TargetState.objects.bulk_create(
            [TargetState(target_id=pk) for pk in missing], ignore_conflicts=True
        )
        states |= _lock(missing)
    return states


def _lock(target_ids: list[int]) -> dict[int, TargetState]:
    # In the order of their keys, as everybody takes them: nobody waits in a circle.
    rows = TargetState.objects.select_for_update().filter(target__in=target_ids)
    return {state.target_id: state for state in rows.order_by("target_id")}


def _leases(slots: Iterable[int]) -> dict[int, Lease]:
    rows = ProbeSlot.objects.filter(slot__in=list(slots))
    return {
        slot: Lease(epoch, 0 if taken_at is None else us_of(taken_at))
        for slot, epoch, taken_at in rows.values_list("slot", "epoch", "taken_at")
    }


def _write(outcome: Outcome) -> None:
    Flip.objects.bulk_create(outcome.flips)
    Incident.objects.bulk_create(outcome.opened)
    for entry in outcome.entries:
        entry.incident_id = entry.incident.pk
    IncidentEntry.objects.bulk_create(outcome.entries)
    _update_states(outcome.states.values())
    _close(outcome.closed)


def _update_states(states: Iterable[TargetState]) -> None:
    """Each only if its number grows: one that did not was written around the lock."""
    fields = [field for field in TargetState._meta.concrete_fields if not field.primary_key]
    quote = connection.ops.quote_name
    rows = [
        [
            *(
                field.get_db_prep_save(getattr(state, field.attname), connection)
                for field in fields
            ),
            state.target_id,
            state.seq,
        ]
        for state in states
    ]
    if not rows:
        return
    sets = ", ".join(f"{quote(str(field.column))} = %s" for field in fields)
    with connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {quote(TargetState._meta.db_table)} SET {sets} "  # noqa: S608
            "WHERE target_id = %s AND seq < %s",
            rows,
        )
        changed = cursor.rowcount
    if changed != len(rows):
        raise RetryableError(f"{len(rows) - changed} states of targets were moved by somebody else")


def _close(incidents: Sequence[Incident]) -> None:
    """Only this column: somebody may acknowledge the incident meanwhile."""
    if not incidents:
        return
    quote, adapted = connection.ops.quote_name, connection.ops.adapt_datetimefield_value
    with connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {quote(Incident._meta.db_table)} SET closed_at = %s WHERE id = %s",  # noqa: S608
            [[adapted(incident.closed_at), incident.pk] for incident in incidents],
        )
