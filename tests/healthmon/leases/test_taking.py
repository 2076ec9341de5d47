"""Two checkers that want the same slots at the same moment, on real connections."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, connections, transaction

from healthmon.leases.models import ProbeSlot
from healthmon.leases.store import LeaseStore
from healthmon.targets.models import SLOTS

ON_POSTGRESQL = connections["default"].vendor == "postgresql"
ALL = list(range(SLOTS))
GENEROUS_S = 180.0

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def store() -> LeaseStore:
    made = LeaseStore(lease_s=10.0)
    made.prepare()
    return made


def elsewhere(call: Callable[[], Any]) -> Any:
    """What it returns on a thread, and so a connection, of its own."""
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append(call())
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(GENEROUS_S)
    assert not thread.is_alive()
    return answers[0]


def test_each_slot_has_one_taker_and_one_epoch(store: LeaseStore) -> None:
    gate = threading.Barrier(4)
    taken: dict[str, dict[int, int]] = {}

    def take(name: str) -> None:
        try:
            gate.wait(GENEROUS_S)
            taken[name] = store.take(name, ALL)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=take, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GENEROUS_S)
    assert sorted(slot for slots in taken.values() for slot in slots) == ALL
    for name, slots in taken.items():
        rows = ProbeSlot.objects.filter(holder=name)
        assert dict(rows.values_list("slot", "epoch")) == slots == dict.fromkeys(slots, 1)


@pytest.mark.skipif(not ON_POSTGRESQL, reason="SQLite has one lock for all")
def test_slots_that_another_is_taking_are_left_to_it_without_waiting(store: LeaseStore) -> None:
    with transaction.atomic():
        list(ProbeSlot.objects.select_for_update().filter(slot__lt=10))
        assert sorted(elsewhere(lambda: store.take("b", ALL))) == ALL[10:]
    assert sorted(elsewhere(lambda: store.take("b", ALL))) == ALL[:10]


def test_one_that_was_renewed_after_it_was_looked_at_is_not_taken(store: LeaseStore) -> None:
    """What was free in the picture may be held again when it comes to taking it."""
    LeaseStore(lease_s=-1.0).take("a", ALL)
    picture = store.renew("b")
    assert all(one.free for one in picture.slots)
    store.renew("a")
    assert store.take("b", ALL) == {}
    assert set(ProbeSlot.objects.values_list("holder", "epoch")) == {("a", 1)}


@pytest.mark.skipif(not ON_POSTGRESQL, reason="SQLite has one lock for all")
def test_a_taker_that_vanishes_in_the_midst_of_it_does_not_keep_its_rows(
    store: LeaseStore,
) -> None:
    """The server ends the transaction of one who says no more."""
    quick = LeaseStore(lease_s=2.0)

    def vanishes() -> str:
        with transaction.atomic():
            quick._bound_silence()
            with connection.cursor() as cursor:
                cursor.execute("SHOW idle_in_transaction_session_timeout")
                return str(cursor.fetchone()[0])

    assert vanishes() == "1s"
    with connection.cursor() as cursor:
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        assert cursor.fetchone()[0] == "0"
