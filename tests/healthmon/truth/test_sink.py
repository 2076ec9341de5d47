"""The flips sink: state, flips and incidents together, once each, whoever delivers and when."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from healthmon.targets.models import Target
from healthmon.truth.changes import record_of
from healthmon.truth.models import Flip, Incident, IncidentEntry, TargetState
from healthmon.truth.sink import FlipsSink
from healthmon.truth.stored import FlipStored
from pipeline.errors import PartialFailure, RetryableError
from pipeline.record import Record
from pipeline.sink import Written
from tests.healthmon.truth.cast import (
    batch_of,
    change,
    heard_flips,
    lease,
    make_target,
    when,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def target(db: None) -> Target:
    return make_target()


@pytest.fixture
def sink() -> FlipsSink:
    return FlipsSink()


@pytest.fixture(autouse=True)
def told() -> Iterator[list[FlipStored]]:
    with heard_flips() as heard:
        yield heard


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def flips(target: Target) -> list[tuple[int, str, str]]:
    rows = Flip.objects.filter(target=target).order_by("seq")
    return list(rows.values_list("seq", "from_status", "to_status"))


def test_a_first_change_makes_the_state(sink: FlipsSink, target: Target) -> None:
    expires_us = 1_800_000_000_000_000
    first = change(target, 1, "new>up", 5, reason="", epoch=3, cert_expires_us=expires_us)
    assert sink.write(batch_of([first])) == Written(stored=1)
    state = TargetState.objects.get(target=target)
    assert (state.status, state.since, state.seq, state.epoch) == ("up", when(5), 1, 3)
    assert state.cert_expires_at is not None
    flip = Flip.objects.get(target=target)
    assert (flip.at, flip.checker, flip.epoch) == (when(5), "checker-1", 3)
    assert not Incident.objects.exists()


def test_an_outage_from_down_to_up(sink: FlipsSink, target: Target, told: list[FlipStored]) -> None:
    sink.write(batch_of([change(target, 1, "new>up", 0)]))
    sink.write(batch_of([change(target, 2, "up>down", 10)]))
    incident = Incident.objects.get()
    assert (incident.opened_at, incident.closed_at) == (when(10), None)
    assert (incident.cause, incident.severity) == ("connection refused", "critical")
    sink.write(batch_of([change(target, 3, "down>up", 70, reason="")]))
    incident.refresh_from_db()
    assert incident.closed_at == when(70)
    lines = IncidentEntry.objects.filter(incident=incident).values_list("kind", "text")
    assert list(lines) == [("opened", "up -> down: connection refused"), ("closed", "down -> up")]
    assert [(one.opened, one.closed) for one in told] == [
        (False, False),
        (True, False),
        (False, True),
    ]
    assert told[1].incident == told[2].incident == incident


def test_a_whole_outage_in_one_batch(sink: FlipsSink, target: Target) -> None:
    sink.write(
        batch_of([change(target, 1, "new>down", 10), change(target, 2, "down>degraded", 20)])
    )
    incident = Incident.objects.get()
    assert (incident.opened_at, incident.closed_at) == (when(10), when(20))
    assert [entry.kind for entry in incident.entries.all()] == ["opened", "closed"]


@pytest.mark.parametrize(
    ("moves", "is_open"),
    [
        (["down>unknown"], True),
        (["down>unknown", "unknown>down"], True),
        (["down>unknown", "unknown>up"], False),
        (["down>paused"], False),
        (["down>maintenance"], False),
        (["down>degraded"], False),
        (["down>down"], True),
    ],
)
def test_what_ends_an_incident(
    sink: FlipsSink, target: Target, moves: list[str], is_open: bool
) -> None:
    sink.write(batch_of([change(target, 1, "new>down", 0)]))
    for seq, move in enumerate(moves, 2):
        sink.write(batch_of([change(target, seq, move, seq)]))
    assert (Incident.objects.get().closed_at is None) is is_open


def test_the_same_batch_again_stores_nothing(
    sink: FlipsSink, target: Target, told: list[FlipStored]
) -> None:
    changes = [change(target, 1, "new>up", 0), change(target, 2, "up>down", 10)]
    sink.write(batch_of(changes))
    again = sink.write(batch_of(changes, log_id="log-2"))
    assert again == Written(stored=0, already_stored=2)
    assert len(told) == 2
    assert Incident.objects.count() == 1
    assert IncidentEntry.objects.count() == 1


def test_the_same_change_twice_in_a_batch_is_one(sink: FlipsSink, target: Target) -> None:
    one = change(target, 1, "new>down", 0)
    assert sink.write(batch_of([one, one])) == Written(stored=1, already_stored=1)
    assert Incident.objects.count() == 1


def test_a_change_that_comes_late_is_history(
    sink: FlipsSink, target: Target, told: list[FlipStored]
) -> None:
    sink.write(batch_of([change(target, 1, "new>up", 0)]))
    sink.write(batch_of([change(target, 3, "down>up", 30)]))
    told.clear()
    late = batch_of([change(target, 2, "up>down", 10)])
    assert sink.write(late) == Written(stored=1)
    assert told == []
    assert flips(target) == [(1, "new", "up"), (2, "up", "down"), (3, "down", "up")]
    state = TargetState.objects.get(target=target)
    assert (state.status, state.seq, state.since) == ("up", 3, when(30))
    incident = Incident.objects.get()
    assert (incident.opened_at, incident.closed_at) == (when(10), when(30))
    assert sink.write(late) == Written(stored=0, already_stored=1)
    assert Incident.objects.count() == 1


def test_a_late_down_that_is_not_over_dates_the_incident_back(
    sink: FlipsSink, target: Target
) -> None:
    sink.write(batch_of([change(target, 1, "new>up", 0)]))
    sink.write(batch_of([change(target, 4, "unknown>down", 40)]))
    sink.write(batch_of([change(target, 2, "up>down", 10)]))
    incident = Incident.objects.get()
    assert (incident.opened_at, incident.closed_at) == (when(10), None)


def test_a_late_down_under_an_unknown_is_an_open_incident(sink: FlipsSink, target: Target) -> None:
    sink.write(batch_of([change(target, 1, "new>up", 0), change(target, 3, "down>unknown", 20)]))
    sink.write(batch_of([change(target, 2, "up>down", 10)]))
    assert Incident.objects.get().closed_at is None
    sink.write(batch_of([change(target, 4, "unknown>up", 30)]))
    assert Incident.objects.get().closed_at == when(30)


def test_any_order_of_delivery_ends_in_the_same_history(sink: FlipsSink, db: None) -> None:
    moves = ["new>up", "up>down", "down>up", "up>down", "down>up"]
    for number, order in enumerate(itertools.permutations(range(5))):
        if number % 7:  # a share of them is enough, and quicker
            continue
        target = Target.objects.create(name=f"order {number}")
        for index in order:
            one = change(target, index + 1, moves[index], 10 * index)
            for _ in range(2):
                sink.write(batch_of([one]))
        state = TargetState.objects.get(target=target)
        assert (state.status, state.seq, state.since) == ("up", 5, when(40))
        assert [seq for seq, _, _ in flips(target)] == [1, 2, 3, 4, 5]
        spans = Incident.objects.filter(target=target).order_by("opened_at")
        assert list(spans.values_list("opened_at", "closed_at")) == [
            (when(10), when(20)),
            (when(30), when(40)),
        ], order


# --- leases -----------------------------------------------------------------------------------


def test_a_zombie_changes_nothing(sink: FlipsSink, target: Target, told: list[FlipStored]) -> None:
    """Frozen, overtaken, thawed: its failures before the freeze do not make the row older."""
    sink.write(batch_of([change(target, 1, "new>up", 0, epoch=1)]))
    lease(target, epoch=2, taken=60)
    told.clear()
    before = counted("flips_fenced_total")
    decided_now = change(target, 2, "up>down", 70, epoch=1)
    begun_before = change(target, 2, "up>down", 50, epoch=1)
    assert sink.write(batch_of([decided_now])) == Written(stored=1)  # it has ended, as it should
    assert sink.write(batch_of([begun_before], arrived=70)) == Written(stored=1)
    assert counted("flips_fenced_total") - before == 2
    assert flips(target) == [(1, "new", "up")]
    assert not Incident.objects.exists()
    assert told == []


def test_a_dead_checkers_log_that_comes_late_is_taken(
    sink: FlipsSink, target: Target, told: list[FlipStored]
) -> None:
    sink.write(batch_of([change(target, 1, "new>up", 0, epoch=1)]))
    lease(target, epoch=2, taken=60)
    told.clear()
    sink.write(batch_of([change(target, 2, "up>down", 50, epoch=1)], arrived=55))
    assert TargetState.objects.get(target=target).status == "down"
    assert [one.opened for one in told] == [True]
    # Its successor has read the state anew and goes on from there.
    sink.write(batch_of([change(target, 3, "down>up", 80, epoch=2)]))
    assert Incident.objects.get().closed_at == when(80)


def test_a_dead_checkers_log_changes_nothing_that_its_successor_has_found(
    sink: FlipsSink,
    target: Target,
    told: list[FlipStored],
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink.write(batch_of([change(target, 1, "new>up", 0, epoch=1)]))
    lease(target, epoch=2, taken=60)
    sink.write(batch_of([change(target, 2, "up>down", 65, epoch=2)]))
    told.clear()
    fenced = counted("flips_fenced_total")
    superseded = counted("flips_dropped_total", reason="superseded")
    dead = [
        change(target, 2, "up>down", 50, epoch=1),
        change(target, 3, "down>up", 55, epoch=1),
    ]
    with caplog.at_level(logging.WARNING, logger="healthmon.truth.sink"):
        assert sink.write(batch_of(dead)) == Written(stored=2)  # they have ended, and are counted
    assert counted("flips_dropped_total", reason="superseded") - superseded == 1
    assert counted("flips_fenced_total") - fenced == 1
    [line] = caplog.records
    assert "are not stored" in line.message
    assert (line.__dict__["target"], line.__dict__["change"]) == ("web", "up -> down")
    assert told == []
    assert TargetState.objects.get(target=target).status == "down"
    # The number that the dead one had given is still free for its successor.
    sink.write(batch_of([change(target, 3, "down>up", 90, epoch=2)]))
    assert flips(target)[-1] == (3, "down", "up")
    assert Incident.objects.get().closed_at == when(90)


def test_a_successor_whose_number_the_dead_ones_late_change_has_taken_is_counted(
    sink: FlipsSink, target: Target
) -> None:
    sink.write(batch_of([change(target, 1, "new>up", 0, epoch=1)]))
    lease(target, epoch=2, taken=60)
    sink.write(batch_of([change(target, 2, "up>down", 50, epoch=1)], arrived=55))
    superseded = counted("flips_dropped_total", reason="superseded")
    second = batch_of([change(target, 2, "up>degraded", 65, epoch=2)])
    for times in (1, 2):
        assert sink.write(second) == Written(stored=1)
        assert counted("flips_dropped_total", reason="superseded") - superseded == times
    # What has the number is still known for what it is, whoever brings it again.
    again = batch_of([change(target, 2, "up>down", 50, epoch=1)], arrived=55, log_id="log-2")
    assert sink.write(again) == Written(stored=0, already_stored=1)
    assert flips(target) == [(1, "new", "up"), (2, "up", "down")]


def test_the_holder_is_believed_and_a_slot_that_was_never_leased_fences_nobody(
    sink: FlipsSink, target: Target
) -> None:
    sink.write(batch_of([change(target, 1, "new>up", 0, epoch=0)]))
    lease(target, epoch=7, taken=10)
    sink.write(batch_of([change(target, 2, "up>down", 20, epoch=7)]))
    assert [seq for seq, _, _ in flips(target)] == [1, 2]


def test_a_change_on_its_way_while_the_slot_is_handed_over_is_taken(
    sink: FlipsSink, target: Target
) -> None:
    sink.write(batch_of([change(target, 1, "new>up", 0, epoch=1)]))
    lease(target, epoch=2, taken=60)
    sink.write(batch_of([change(target, 2, "up>down", 59, epoch=1)], arrived=60.5))
    assert TargetState.objects.get(target=target).status == "down"


# --- what is wrong with a batch ---------------------------------------------------------------


def test_a_target_that_is_gone_costs_its_neighbours_nothing(
    sink: FlipsSink, target: Target
) -> None:
    before = counted("flips_dropped_total", reason="target_deleted")
    written = sink.write(
        batch_of([change(987_654, 1, "new>up", 0), change(target, 1, "new>up", 0)])
    )
    assert written == Written(stored=2)
    assert counted("flips_dropped_total", reason="target_deleted") - before == 1
    assert flips(target) == [(1, "new", "up")]
    assert sink.write(batch_of([change(987_654, 2, "up>down", 0)])) == Written(stored=1)


def test_poison_is_named_and_the_rest_is_stored(sink: FlipsSink, target: Target) -> None:
    def poison(payload: bytes) -> Record:
        record = record_of(change(target, 1, "new>up", 0))
        record.payload = payload
        return record

    changes: list[Any] = [
        poison(b"{"),
        change(target, 1, "new>up", 0),
        change(target, 2, "up>asleep", 0),
        change(target, 2**63, "up>down", 0),
        change(target, 2, "up>down", 1e13),
    ]
    with pytest.raises(PartialFailure) as raised:
        sink.write(batch_of(changes))
    assert sorted(raised.value.failures) == [0, 2, 3, 4]
    assert "asleep" in raised.value.failures[2]
    assert flips(target) == [(1, "new", "up")]


def test_a_reason_that_no_database_takes_is_made_fit(sink: FlipsSink, target: Target) -> None:
    sink.write(batch_of([change(target, 1, "new>down", 0, reason="a\x00b" + "c" * 1_000)]))
    assert Incident.objects.get().cause.startswith("a\\0bccc")


def test_a_hook_that_fails_undoes_the_transaction(
    sink: FlipsSink, target: Target, told: list[FlipStored]
) -> None:
    from healthmon.truth import stored

    def broken(flips: object) -> None:
        raise RuntimeError("the outbox is full")

    stored.register_flip_hook(broken, name="broken")
    one = batch_of([change(target, 1, "new>down", 0)])
    try:
        with pytest.raises(RuntimeError, match="outbox"):
            sink.write(one)
    finally:
        stored.unregister_flip_hook("broken")
    assert not Flip.objects.exists()
    assert not Incident.objects.exists()
    assert sink.write(one) == Written(stored=1)
    assert Incident.objects.count() == 1


def test_a_state_that_somebody_else_moves_is_seen(sink: FlipsSink, target: Target) -> None:
    from django.db import transaction

    from healthmon.truth import store

    state = TargetState.objects.create(target=target, seq=5, status="up")
    state.seq = 4
    with pytest.raises(RetryableError, match="moved by somebody else"), transaction.atomic():
        store._update_states([state])


# --- flapping, parents ------------------------------------------------------------------------


def test_flapping_begins_and_ends(sink: FlipsSink, target: Target, told: list[FlipStored]) -> None:
    sink.write(batch_of([change(target, 1, "new>up", 0)]))
    sink.write(batch_of([change(target, 2, "up>down", 10, flapping=True)]))
    sink.write(batch_of([change(target, 3, "down>down", 90, reason="no longer flapping")]))
    assert [(one.flapping_began, one.flapping_ended) for one in told] == [
        (False, False),
        (True, False),
        (False, True),
    ]
    assert [one.is_change for one in told] == [True, True, False]
    state = TargetState.objects.get(target=target)
    assert (state.status, state.since, state.flapping, state.seq) == ("down", when(10), False, 3)
    assert told[2].incident == Incident.objects.get()


def test_a_child_of_a_parent_that_is_down_blames_it(
    sink: FlipsSink, target: Target, told: list[FlipStored]
) -> None:
    switch = Target.objects.create(name="switch")
    router = Target.objects.create(name="router")
    target.parents.add(switch)
    switch.parents.add(router)
    sink.write(batch_of([change(router, 1, "new>down", 0)]))
    # The switch in the same batch, behind its child.
    sink.write(batch_of([change(target, 1, "new>down", 1), change(switch, 1, "new>down", 1)]))
    blamed = dict(Incident.objects.values_list("target", "suppressed_by"))
    assert blamed == {router.pk: None, switch.pk: router.pk, target.pk: switch.pk}
    assert {one.target.pk: one.suppressed_by_id for one in told} == blamed


def test_a_random_life_of_many_targets_is_told_as_it_was(sink: FlipsSink, db: None) -> None:
    """Batches cut anywhere, some delivered twice: the state is that of the last flip."""
    dice = random.Random(4)
    targets = [Target.objects.create(name=f"t{n}") for n in range(5)]
    status = dict.fromkeys(targets, "new")
    seq = dict.fromkeys(targets, 0)
    changes = []
    for second in range(200):
        one = dice.choice(targets)
        to = dice.choice([s for s in ("up", "down", "degraded", "unknown") if s != status[one]])
        seq[one] += 1
        changes.append(change(one, seq[one], f"{status[one]}>{to}", second))
        status[one] = to
    while changes:
        size = dice.randint(1, 20)
        batch = batch_of(changes[:size])
        for _ in range(dice.choice((1, 1, 2))):
            sink.write(batch)
        changes = changes[size:]
    for one in targets:
        state = TargetState.objects.get(target=one)
        assert (state.status, state.seq) == (status[one], seq[one])
        assert Flip.objects.filter(target=one).count() == seq[one]
        still = Incident.objects.filter(target=one, closed_at=None).count()
        assert still <= 1
        assert still or status[one] != "down"
