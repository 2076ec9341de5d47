"""Letters in the control database: once each, exactly as they were, counted."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from django.db import transaction
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from sinks.deadletters import store, tally
from sinks.deadletters.letters import letter_of, pattern_of, row_of
from sinks.models import DeadLetter, DeadLetterTally
from tests.deadletters.letters import letter, letters

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.django_db
def test_letters_are_kept_once_and_counted():
    some = letters(1_203)
    assert store.keep(some) == 1_203
    assert store.keep(some[100:] + letters(2)) == 2
    row = DeadLetterTally.objects.get()
    assert (row.sink, row.sink_name) == ("sink-a", "name of sink-a")
    assert (row.entered, row.waiting, row.imbalance) == (1_205, 1_205, 0)
    assert tally.differences("sink-a") == {}


@pytest.mark.django_db
def test_the_same_record_of_two_sinks_is_two_letters():
    one = letter("a")
    assert store.keep([one, msgspec.structs.replace(one, sink="b"), one]) == 2


@pytest.mark.django_db
def test_a_letter_comes_back_as_it_was():
    one = letter(payload=b'{"a": 1.50,  "b":"\\u00e9\xc3\xa9"}')
    store.keep([one])
    assert letter_of(DeadLetter.objects.get()) == one
    assert DeadLetter.objects.get().exact is None


AWKWARD: dict[str, Any] = {
    "message": "nul \0 inside",
    "service": "s" * 400,
    "payload": b'\xff\xfe{"not": "utf-8"}\0',
    "timestamp_us": 2**62,
}


@pytest.mark.django_db
@pytest.mark.parametrize("name", AWKWARD)
def test_what_columns_cannot_hold_comes_back_too(name):
    one = letter(**{name: AWKWARD[name]}, error="broken \0 \ud800")
    store.keep([one])
    again = letter_of(DeadLetter.objects.get())
    assert msgspec.structs.replace(again, error=one.error) == one
    assert "\0" not in again.error


class TestAnyLetter(TestCase):
    databases = {"default", "records"}

    @settings(max_examples=60, deadline=None)
    @given(
        message=st.text(max_size=50),
        service=st.text(max_size=300),
        payload=st.binary(max_size=60),
        us=st.integers(-(2**62), 2**62),
        error=st.text(alphabet=st.characters(), max_size=50),
    )
    def test_any_letter_is_taken(self, message, service, payload, us, error):
        made = letter(message=message, service=service, timestamp_us=us, error=error)
        made = msgspec.structs.replace(made, payload=payload)
        store.keep([made])
        again = letter_of(DeadLetter.objects.get(record_id=made.record_id))
        assert msgspec.structs.replace(again, error="") == msgspec.structs.replace(made, error="")


@pytest.mark.django_db(transaction=True)
def test_nothing_is_kept_inside_somebodys_transaction():
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        store.keep(letters(1))


@pytest.mark.django_db(transaction=True)
def test_two_workers_with_the_same_letters_count_them_once():
    some = letters(400)
    start = threading.Barrier(2)
    counts: list[int] = []

    def keep(mine: list[Any]) -> None:
        with store.own_connection():
            start.wait(180)
            counts.append(store.keep(mine))

    threads = [threading.Thread(target=keep, args=(one,)) for one in (some, some[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    assert sum(counts) == 400
    assert DeadLetterTally.objects.get().entered == DeadLetter.objects.count() == 400


@pytest.mark.django_db
def test_a_letter_that_comes_again_without_a_redrive_stays_what_it_became():
    one = letter()
    store.keep([one])
    for state in ("redriven", "discarded", "expired"):
        DeadLetter.objects.update(state=state)
        store.keep([msgspec.structs.replace(one, error="another")])
        row = DeadLetter.objects.get()
        assert (row.state, row.error, row.attempts) == (state, one.error, 1)


@pytest.mark.django_db
def test_a_letter_that_comes_back_from_a_redrive_waits_again():
    one = letter()
    store.keep([one])
    DeadLetter.objects.update(state="redriven")
    tally.moved("sink-a", "waiting", "redriven", 1)
    again = msgspec.structs.replace(one, error="still bad", attempts=3, origin="redrive-1-1")
    for _ in range(2):
        assert store.keep([again]) == 0
    row = DeadLetter.objects.get()
    assert (row.state, row.error, row.attempts, row.redrives) == ("waiting", "still bad", 4, 1)
    assert tally.differences("sink-a") == {}
    assert DeadLetterTally.objects.get().imbalance == 0


@pytest.mark.django_db
def test_a_replay_does_not_undo_a_redrive_that_came_after_another():
    """A log is adopted and its batch refused again, when the edited letter is stored already."""
    one = letter()
    store.keep([one])
    store.keep([msgspec.structs.replace(one, error="again", origin="redrive-1-1")])
    DeadLetter.objects.update(state="redriven")
    tally.moved("sink-a", "waiting", "redriven", 1)
    store.keep([one])
    assert DeadLetter.objects.get().state == "redriven"
    assert tally.differences("sink-a") == {}


@pytest.mark.django_db
def test_a_tally_that_lies_is_seen():
    store.keep(letters(3))
    DeadLetter.objects.order_by("pk")[0].delete()
    assert tally.differences("sink-a") == {"waiting": 1}
    tally.moved("sink-a", "waiting", "redriven", 1)
    DeadLetterTally.objects.update(entered=4)
    assert DeadLetterTally.objects.get().imbalance == 1


@pytest.mark.parametrize(
    ("error", "pattern"),
    [
        ("amount -5 is below 0\nDETAIL: row 17", "amount -N is below N"),
        ("id 0b9f2f0e-7f51-4b0c-9d8e-5a1a5f6c7d10 unknown", "id <id> unknown"),
        ("trace 4bf92f3577b34da6a3ce929d0e0e4736 at 10:11:12.5", "trace <id> at N"),
        ("", ""),
    ],
)
def test_like_errors_have_one_pattern(error, pattern):
    assert pattern_of(error) == pattern


def test_a_row_is_made_without_a_database():
    row = row_of(letter(message="x" * 20_000), now=NOW)
    assert len(row.message) == 20_000
    assert row.state == "waiting"
