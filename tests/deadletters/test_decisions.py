"""Edits, discards, retention: what they change, what they refuse, what they note."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from sinks.deadletters import decisions, retention, store, tally
from sinks.deadletters.letters import letter_of
from sinks.deadletters.selection import Selection
from sinks.models import DeadLetter, DeadLetterAction, DeadLetterTally
from tests.deadletters.letters import letter, letters

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def balanced(sink: str = "sink-a") -> None:
    assert DeadLetterTally.objects.get(pk=sink).imbalance == 0
    assert tally.differences(sink) == {}


def test_an_edit_keeps_the_original_and_derives_the_fields():
    one = letter()
    store.keep([one])
    pk = DeadLetter.objects.get().pk
    text = """{
      "timestamp": "2026-01-02T03:04:05Z",
      "level": "ERROR", "service": "pay", "msg": "fixed", "n": 1.50
    }"""
    decisions.edit(pk, text, who="ann")
    row = DeadLetter.objects.get()
    assert row.payload.encode() == one.payload
    assert (row.service, row.message, row.severity, row.edited_by) == ("pay", "fixed", 17, "ann")
    assert row.timestamp == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    sent = letter_of(row)
    assert b"\n" not in sent.payload
    assert b'"n": 1.50' in sent.payload
    assert (sent.service, sent.record_id) == ("pay", one.record_id)
    decisions.edit(pk, row.payload, who="ann")
    assert letter_of(DeadLetter.objects.get()) == one
    kinds = list(DeadLetterAction.objects.order_by("pk").values_list("kind", flat=True))
    assert kinds == ["edit", "restore"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "malformed"),
        ("[1]", "object"),
        ('"text"', "object"),
        ('{"a":1} {"b":2}', "malformed"),
        ('{"message": "a\\u0000b"}', "NUL"),
        ('{"level": {}}', "level"),
        ('{"timestamp": "yesterday"}', "timestamp"),
        ('{"tenant": "somebody-else"}', "tenant"),
        ("{" + '"a":{' * 70 + "}" * 71, "nests"),
        ('{"a": "' + "x" * 1_100_000 + '"}', "bytes"),
        ("", "object"),
    ],
)
def test_what_the_front_door_refuses_is_refused_here(text, said):
    store.keep([letter()])
    before = letter_of(DeadLetter.objects.get())
    with pytest.raises(decisions.Refused, match=f"(?i){said}"):
        decisions.edit(DeadLetter.objects.get().pk, text, who="ann")
    assert letter_of(DeadLetter.objects.get()) == before


def test_a_type_that_nobody_reads_needs_an_object():
    store.keep([letter(type="unheard-of")])
    pk = DeadLetter.objects.get().pk
    with pytest.raises(decisions.Refused, match="object"):
        decisions.edit(pk, "[]", who="ann")
    decisions.edit(pk, '{"a": 2}', who="ann")
    assert letter_of(DeadLetter.objects.get()).payload == b'{"a": 2}'


def test_an_exact_letter_can_be_edited_and_restored():
    one = letter(message="nul \0")
    store.keep([one])
    pk = DeadLetter.objects.get().pk
    decisions.edit(pk, '{"message": "plain"}', who="ann")
    assert letter_of(DeadLetter.objects.get()).message == "plain"
    decisions.edit(pk, DeadLetter.objects.get().payload, who="ann")
    assert letter_of(DeadLetter.objects.get()) == one


@pytest.mark.parametrize("state", ["redriving", "redriven", "discarded", "expired"])
def test_only_a_waiting_letter_is_edited(state):
    store.keep([letter()])
    DeadLetter.objects.update(state=state)
    with pytest.raises(decisions.Refused, match=state):
        decisions.edit(DeadLetter.objects.get().pk, "{}", who="ann")


def test_discarding_needs_a_reason_and_is_noted():
    store.keep(letters(4) + letters(2, reason="age"))
    with pytest.raises(decisions.Refused, match="Say why"):
        decisions.discard(Selection(reason="age"), who="ann", reason="  ", at_most=10)
    assert (
        decisions.discard(Selection(reason="age"), who="ann", reason="test data", at_most=10) == 2
    )
    assert DeadLetter.objects.filter(state="discarded").count() == 2
    action = DeadLetterAction.objects.get()
    assert (action.kind, action.count, action.reason) == ("discard", 2, "test data")
    assert action.selection == {"sink": "sink-a", "reason": "age"}
    balanced()
    with pytest.raises(decisions.Refused, match="None"):
        decisions.discard(Selection(reason="age"), who="ann", reason="x", at_most=10)


def test_discarding_is_bounded(monkeypatch):
    monkeypatch.setattr(decisions, "DISCARD_CHUNK", 4)
    store.keep(letters(20))
    assert decisions.discard(Selection(), who="ann", reason="x", at_most=10) == 10
    assert DeadLetter.objects.filter(state="waiting").count() == 10
    balanced()


def test_a_letter_that_is_being_redriven_is_not_discarded():
    store.keep(letters(2))
    DeadLetter.objects.update(state="redriving")
    with pytest.raises(decisions.Refused):
        decisions.discard(Selection(), who="ann", reason="x", at_most=10)


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        (Selection(), 6),
        (Selection(sink="b"), 1),
        (Selection(tenant="acme"), 2),
        (Selection(reason="age"), 3),
        (Selection(pattern="amount N"), 3),
        (Selection(pattern=""), 1),
        (Selection(q="amount -2"), 1),
        (Selection(q="nothing like it"), 0),
        (Selection(since=NOW + timedelta(seconds=1)), 0),
        (Selection(until=NOW), 0),
        (Selection(since=NOW), 6),
        (Selection(ids=()), 0),
    ],
)
def test_what_a_selection_means(selection, count):
    store.keep(
        [
            *(letter(error=f"amount {n}", reason="age") for n in (1, 20, 300)),
            *(letter(error=f"amount -{n}", tenant="acme") for n in (1, 2)),
            letter("b", error=""),
        ],
        now=NOW,
    )
    assert decisions.count(selection) == count
    assert Selection.from_json(msgspec.json.decode(msgspec.json.encode(selection.to_json()))) == (
        selection
    )
    assert selection.words()


def test_letters_nobody_decides_about_expire_and_are_forgotten_later(caplog):
    store.keep(letters(1_100), now=NOW)
    store.keep(letters(3), now=NOW + timedelta(days=20))
    decisions.discard(
        Selection(ids=tuple(DeadLetter.objects.order_by("pk").values_list("pk", flat=True)[:2])),
        who="ann",
        reason="x",
        at_most=10,
        now=NOW,
    )
    at = NOW + timedelta(days=31)
    assert retention.due(at, days=30) == {"dead_letters_expired": 1_098, "dead_letters": 2}
    assert DeadLetter.objects.filter(state="waiting").count() == 1_101
    assert retention.forget_old(at, days=30) == {"dead_letters_expired": 1_098, "dead_letters": 2}
    assert "expired" in caplog.text
    balanced()
    row = DeadLetterTally.objects.get()
    assert (row.entered, row.waiting, row.discarded, row.expired) == (1_103, 3, 2, 1_098)
    assert retention.forget_old(at, days=30) == {"dead_letters_expired": 0, "dead_letters": 0}
    again = retention.forget_old(at + timedelta(days=8), days=30)
    assert again == {"dead_letters_expired": 0, "dead_letters": 1_098}
    assert DeadLetter.objects.count() == 3
    balanced()
    kinds = set(DeadLetterAction.objects.values_list("kind", flat=True))
    assert kinds == {"discard", "expire"}


def test_a_letter_that_is_being_redriven_does_not_expire():
    store.keep(letters(1), now=NOW)
    DeadLetter.objects.update(state="redriving")
    assert retention.forget_old(NOW + timedelta(days=99), days=30)["dead_letters_expired"] == 0
