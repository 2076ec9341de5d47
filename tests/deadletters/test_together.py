"""Workers that have letters at the same time: one transaction for all that wait."""

from __future__ import annotations

import threading

import pytest
from django.db import DataError, OperationalError, connection, connections

from sinks.deadletters import store
from sinks.deadletters.box import DatabaseBox
from sinks.deadletters.spool import Spool
from sinks.models import DeadLetter
from tests.deadletters.letters import letter, letters


class Held:
    """A database that keeps the first letters until it is let go on, and refuses some."""

    def __init__(self, *, away: bool = False) -> None:
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.calls: list[list[int]] = []
        self.kept: list[int] = []
        self._away = away

    def keep(self, some):
        self.calls.append([one.record_id for one in some])
        if len(self.calls) == 1:
            self.entered.set()
            assert self.go_on.wait(180)
        if self._away:
            raise OperationalError("away")
        if any(one.tenant == "refused" for one in some):
            raise DataError("not this one")
        self.kept += self.calls[-1]
        return len(some)


def put_while_held(box, held, groups):
    """Put the first, and the others while the database is busy with it; returns the errors."""
    errors: list[Exception] = []

    def put(some):
        try:
            box.put(some)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=put, args=(some,)) for some in groups]
    threads[0].start()
    assert held.entered.wait(180)
    for number, thread in enumerate(threads[1:], 1):
        thread.start()
        while len(box._waiting) < number:
            thread.join(0.001)
    held.go_on.set()
    for thread in threads:
        thread.join(180)
    return errors


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


@pytest.mark.django_db(transaction=True)
def test_what_waits_is_kept_at_once(spool):
    held, groups = Held(), [letters(2) for _ in range(4)]
    assert put_while_held(DatabaseBox(spool=spool, keep=held.keep), held, groups) == []
    assert len(held.calls) == 2
    assert sorted(held.calls[1]) == [one.record_id for some in groups[1:] for one in some]
    assert spool.files() == []


@pytest.mark.django_db(transaction=True)
def test_a_refused_letter_does_not_take_those_of_other_workers_along(spool):
    held = Held()
    bad = letter(tenant="refused")
    groups = [letters(1), letters(1), [bad], letters(1)]
    errors = put_while_held(DatabaseBox(spool=spool, keep=held.keep), held, groups)
    assert errors == []
    assert [len(call) for call in held.calls[:2]] == [1, 3]
    assert all(len(call) == 1 for call in held.calls[2:]), "each by itself"
    spool.seal()
    (path,) = spool.files()
    with spool.taken(path) as content:
        assert content is not None
        spooled = [one.record_id for one in content.letters]
    assert bad.record_id in spooled
    everything = [one.record_id for some in groups for one in some]
    assert sorted(held.kept + spooled) == sorted(everything)


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_away_is_asked_by_one_worker(spool):
    held, groups = Held(away=True), [letters(2) for _ in range(4)]
    assert put_while_held(DatabaseBox(spool=spool, keep=held.keep), held, groups) == []
    assert len(held.calls) == 1
    spool.seal()
    (path,) = spool.files()
    with spool.taken(path) as content:
        assert content is not None
        assert len(content.letters) == 8


@pytest.mark.django_db(transaction=True)
def test_a_connection_is_used_again_for_a_while_where_it_is_a_file():
    found = []

    def work():
        for _ in range(2):
            with store.own_connection(reuse_s=30.0):
                store.keep(letters(1))
            found.append(connection.connection)
        with pytest.raises(OperationalError), store.own_connection(reuse_s=30.0):
            raise OperationalError("lost")
        found.append(connection.connection)
        connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(180)
    assert DeadLetter.objects.count() == 2
    first, second, last = found
    assert first is second
    assert (first is not None) == (connection.vendor == "sqlite")
    assert last is None
