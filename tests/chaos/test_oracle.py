"""The oracle itself: each kind of wrong that a store can be in is told, and nothing else."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.chaos.oracle import Judgement, Oracle, Record, Stored, same_json
from tests.chaos.regressions import REGRESSIONS
from tests.chaos.run import faults_for, plan


def oracle(*, kills: bool = False) -> Oracle:
    return Oracle(run="chaos-1", rng=random.Random(1), kills=kills)


def answer(accepted: int, *refused: int, ack: str = "wal") -> dict:
    return {"accepted": accepted, "ack": ack, "errors": [{"index": index} for index in refused]}


def stored(*records: Record) -> list[Stored]:
    return [Stored(id=record["id"], payload=record) for record in records]


def judge(oracle: Oracle, found: list[Stored], **options) -> Judgement:
    defaults = {"once": True, "refuses_poison": False, "letters": None}
    return oracle.judge("database", found, **(defaults | options))


def test_what_was_acknowledged_and_is_stored_once_is_well():
    mind = oracle()
    records = mind.issue(3)
    mind.accepted(records, answer(3))
    assert not judge(mind, stored(*records)).faults


def test_a_lost_record_is_missing():
    mind = oracle()
    records = mind.issue(3)
    mind.accepted(records, answer(3))
    assert judge(mind, stored(*records[:2])).missing == [records[2]["id"]]


def test_what_had_no_answer_may_be_stored_or_not_but_not_twice():
    mind = oracle()
    records = mind.issue(2)
    assert not judge(mind, []).faults
    assert not judge(mind, stored(*records)).faults
    assert judge(mind, stored(*records, records[0])).duplicates == [records[0]["id"]]


def test_further_copies_are_counted_where_a_sink_is_at_least_once():
    mind = oracle()
    records = mind.issue(1)
    mind.accepted(records, answer(1))
    found = judge(mind, stored(*records, *records, *records), once=False)
    assert not found.faults
    assert found.again == 2


def test_what_was_never_posted_is_spurious():
    assert judge(oracle(), stored({"id": "chaos-2-0"})).spurious == ["chaos-2-0"]


def test_what_was_refused_by_its_index_must_not_be_stored():
    mind = oracle()
    records = mind.issue(4, bad=1)
    index = next(n for n, record in enumerate(records) if "timestamp" in record)
    mind.accepted(records, answer(3, index))
    assert not mind.violations
    assert judge(mind, stored(*records)).spurious == [records[index]["id"]]


@pytest.mark.parametrize("wrong", [answer(4), answer(3, 99), answer(2, 0, 1)])
def test_an_answer_that_counts_wrongly_is_told(wrong):
    mind = oracle()
    mind.accepted(mind.issue(4, bad=1), wrong)
    assert len(mind.violations) == 1


def test_a_payload_that_changed_is_corrupted():
    mind = oracle()
    records = mind.issue(1)
    changed = Stored(id=records[0]["id"], payload=records[0] | {"ratio": 2})
    assert judge(mind, [changed]).corrupted == [records[0]["id"]]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        ({"a": [1]}, {"a": [True]}, False),
        ({"a": None}, {}, False),
        ({"a": None}, {"a": None}, True),
        ([1, 2], [2, 1], False),
        ("1", 1, False),
    ],
)
def test_equality_is_that_of_json(one, other, same):
    assert same_json(one, other) is same


@pytest.mark.parametrize(
    ("ack", "kills", "owed"),
    [
        ("memory", True, 0),
        ("memory", False, 1),
        ("wal", True, 1),
        ("wal-unsynced", True, 1),
        ("stored", True, 1),
    ],
)
def test_an_answer_is_a_debt_as_far_as_its_ack_goes(ack, kills, owed):
    mind = oracle(kills=kills)
    mind.accepted(mind.issue(1), answer(1, ack=ack))
    assert len(mind.debts) == owed


def test_poison_needs_one_dead_letter_and_its_neighbours_none():
    mind = oracle()
    records = mind.issue(3, poison=1)
    mind.accepted(records, answer(3))
    poison = next(record for record in records if "poison" in record)
    sound = [record for record in records if record is not poison]
    once = Counter([poison["id"]])

    def found(letters: Counter[str], *rows: Record) -> Judgement:
        return judge(mind, stored(*rows), refuses_poison=True, letters=letters)

    assert not found(once, *sound).faults
    assert found(Counter(), *sound).undead == [poison["id"]]
    assert found(once + once, *sound).undead == [poison["id"]]
    assert found(once + Counter([sound[0]["id"]]), *sound).letters == [sound[0]["id"]]
    assert found(once, *records).spurious == [poison["id"]]
    assert found(once, sound[0]).missing == [sound[1]["id"]]


def test_a_damaged_frame_excuses_its_request_and_no_other():
    mind = oracle()
    hit, near = mind.issue(2), mind.issue(2)
    for records in (hit, near):
        mind.accepted(records, answer(2))
    assert mind.excuse_requests_of([hit[1]["id"]]) == 2
    assert judge(mind, stored(near[0])).missing == [near[1]["id"]]
    # Sent again without its key it would be its own duplicate; a key that was lost excuses it.
    assert judge(mind, stored(*near, *hit, hit[0])).duplicates == [hit[0]["id"]]
    mind.resent([*hit, *near])
    assert not judge(mind, stored(*near, *hit, hit[0])).faults
    assert judge(mind, stored(*near, *hit, near[0])).duplicates == [near[0]["id"]]


def test_a_run_plays_every_fault_of_its_database_and_begins_with_what_once_failed():
    for database in ("sqlite", "postgresql"):
        rounds = plan(rounds=50, seed=3, database=database, only=())
        assert len(rounds) == 50
        assert {fault for fault, _ in rounds} == set(faults_for(database, ()))
        known = [(one.fault, one.seed) for one in REGRESSIONS if one.database == database]
        assert rounds[: len(known)] == known
        assert len({(fault, seed) for fault, seed in rounds}) == 50
    assert plan(rounds=1, seed=208, database="sqlite", only=("cut", "torn_log")) == [
        ("torn_log", 208)
    ]
