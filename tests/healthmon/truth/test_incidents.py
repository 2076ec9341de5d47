"""What people do with incidents, and which parents are blamed for them."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext

from healthmon.targets.models import Target
from healthmon.truth import incidents
from healthmon.truth.models import Incident, IncidentEntry, TargetState
from healthmon.truth.parents import ancestors, down_parents
from healthmon.truth.sink import FlipsSink
from tests.healthmon.truth.cast import batch_of, change, heard_flips, make_target, when

pytestmark = pytest.mark.django_db


@pytest.fixture
def user(db: None) -> Any:
    return get_user_model().objects.create_user("ann")


@pytest.fixture
def incident(db: None) -> Incident:
    return Incident.objects.create(target=make_target(), opened_at=when(0), opened_seq=1)


def test_one_acknowledges_and_the_next_is_told_so(incident: Incident, user: Any) -> None:
    late = Incident.objects.get(pk=incident.pk)
    other = get_user_model().objects.create_user("bob")
    assert incidents.acknowledge(incident, user, now=when(5))
    assert not incidents.acknowledge(late, other, now=when(6))
    assert late.acknowledged_by == user
    stored = Incident.objects.get(pk=incident.pk)
    assert (stored.acknowledged_at, stored.acknowledged_by) == (when(5), user)
    [entry] = incidents.timeline(incident)
    assert (entry.kind, entry.author, entry.at) == ("acknowledged", user, when(5))


def test_acknowledging_and_closing_do_not_undo_each_other(user: Any) -> None:
    target = make_target()
    sink = FlipsSink()
    with heard_flips():
        sink.write(batch_of([change(target, 1, "new>down", 0)]))
        held = Incident.objects.get()
        sink.write(batch_of([change(target, 2, "down>up", 10)]))
        assert incidents.acknowledge(held, user)
        incidents.write_postmortem(held, "a fuse")
    stored = Incident.objects.get()
    assert stored.closed_at == when(10)
    assert stored.acknowledged_by == user
    assert stored.postmortem == "a fuse"


def test_a_timeline_in_one_query(incident: Incident, user: Any) -> None:
    incidents.comment(incident, user, "  looking at it\x00 ", now=when(10))
    incidents.comment(incident, None, "found", now=when(20))
    incidents.notified([incident.pk], "mail to ops", now=when(15))
    with CaptureQueriesContext(connection) as queries:
        lines = [(one.kind, one.text, one.author) for one in incidents.timeline(incident)]
    assert len(queries) == 1
    assert lines == [
        ("comment", "looking at it\ufffd", user),
        ("notified", "mail to ops", None),
        ("comment", "found", None),
    ]


def test_texts_are_bounded(incident: Incident, user: Any) -> None:
    with pytest.raises(ValueError, match="needs a text"):
        incidents.comment(incident, user, " \n")
    with pytest.raises(ValueError, match="at most 5000"):
        incidents.comment(incident, user, "x" * 5_001)
    with pytest.raises(ValueError, match="at most 50000"):
        incidents.write_postmortem(incident, "x" * 50_001)
    with pytest.raises(ValueError, match="at most 5000"):
        incidents.acknowledge(incident, user, text="x" * 5_001)
    assert Incident.objects.get().acknowledged_at is None
    assert not IncidentEntry.objects.exists()


# --- parents ----------------------------------------------------------------------------------


def family(*edges: str) -> dict[str, Target]:
    """Edges like "child<parent"."""
    names = sorted({name for edge in edges for name in edge.split("<")})
    targets = {name: Target.objects.create(name=name) for name in names}
    for edge in edges:
        child, parent = edge.split("<")
        targets[child].parents.add(targets[parent])
    return targets


def down(*targets: Target) -> None:
    for target in targets:
        TargetState.objects.update_or_create(target=target, defaults={"status": "down"})


def test_the_nearest_ancestor_that_is_down_is_blamed() -> None:
    cast = family("a<b", "b<c", "c<d")
    assert down_parents([cast["a"].pk]) == {}
    down(cast["d"])
    assert down_parents([cast["a"].pk]) == {cast["a"].pk: cast["d"].pk}
    down(cast["b"])
    assert down_parents([cast["a"].pk, cast["d"].pk]) == {cast["a"].pk: cast["b"].pk}


def test_what_the_caller_knows_better_counts() -> None:
    cast = family("a<b")
    down(cast["b"])
    a, b = cast["a"].pk, cast["b"].pk
    assert down_parents([a], statuses={b: "up"}) == {}
    assert down_parents([a], statuses={a: "down"}) == {a: b}


def test_targets_in_a_circle_blame_nobody_within_it() -> None:
    cast = family("a<b", "b<c", "c<a", "c<outside", "self<self")
    down(*cast.values())
    blamed = down_parents([target.pk for target in cast.values()])
    outside = cast["outside"].pk
    assert blamed == {cast[name].pk: outside for name in "abc"}


def test_generations_and_queries_are_bounded() -> None:
    cast = family(*(f"t{n:03}<t{n + 1:03}" for n in range(60)))
    with CaptureQueriesContext(connection) as queries:
        found = ancestors([cast["t000"].pk])
    assert len(queries) == 32
    assert len(found[cast["t000"].pk]) == 32
    with CaptureQueriesContext(connection) as queries:
        ancestors([target.pk for target in cast.values()])
    assert len(queries) == 1
