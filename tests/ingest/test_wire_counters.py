"""Increments as they come in: what is taken, what is refused and why, and what is read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.wire.counters import KNOWN, MAX_BY, MAX_LABEL_NAME, MAX_LABELS, read_increment
from ingest.wire.kinds import COUNTERS
from pipeline.record import INFO
from tests.ingest.bodies import one, refusal, take


def test_one_many_and_lines() -> None:
    record = one({"counter": "orders", "by": 2, "labels": {"shop": "berlin"}}, kind=COUNTERS)
    assert (record.message, record.service, record.severity) == ("orders", "", INFO)
    assert read_increment(record.payload) == (("orders", '{"shop":"berlin"}'), 2)
    many = take('[{"counter": "a"}, {"counter": "b", "by": -5}]', kind=COUNTERS)
    lines = take('{"counter": "a"}\n{"counter": "b", "by": -5}\n', kind=COUNTERS)
    for decoded in (many, lines):
        records = decoded.records["default"]
        read = [read_increment(record.payload) for record in records]
        assert read == [(("a", "{}"), 1), (("b", "{}"), -5)]


@pytest.mark.parametrize(
    ("fields", "amount"),
    [
        ({}, 1),
        ({"by": None}, 1),
        ({"by": 0}, 0),
        ({"by": 3.0}, 3),
        ({"by": 1e3}, 1000),
        ({"by": MAX_BY}, MAX_BY),
        ({"by": -MAX_BY}, -MAX_BY),
    ],
)
def test_what_is_added(fields: dict[str, Any], amount: int) -> None:
    record = one({"counter": "c", **fields}, kind=COUNTERS)
    assert read_increment(record.payload) == (("c", "{}"), amount)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"counter": None}, "missing_field"),
        ({"counter": ""}, "missing_field"),
        ({"counter": 7}, "wrong_type"),
        ({"counter": "x" * 256}, "too_long"),
        ({"by": 0.5}, "bad_value"),
        ({"by": "1"}, "wrong_type"),
        ({"by": True}, "wrong_type"),
        ({"by": MAX_BY + 1}, "bad_value"),
        ({"by": -MAX_BY - 1}, "bad_value"),
        ({"by": 1e300}, "bad_value"),
        ({"labels": ["a"]}, "wrong_type"),
        ({"labels": {"a": None}}, "wrong_type"),
        ({"labels": {"a": 1.5}}, "wrong_type"),
        ({"labels": {"a": {}}}, "wrong_type"),
        ({"labels": {"": "x"}}, "missing_field"),
        ({"labels": {"n" * (MAX_LABEL_NAME + 1): "x"}}, "too_long"),
        ({"labels": {"a": "x" * 256}}, "too_long"),
        ({"labels": {"a": 2**63}}, "bad_value"),
        ({"labels": {f"l{n}": "x" for n in range(MAX_LABELS + 1)}}, "too_long"),
        ({"timestamp": "yesterday"}, "bad_timestamp"),
        ({"labels": {"a": "\0"}}, "nul_character"),
        ({"counter": "bell\x07"}, "bad_value"),
        ({"labels": {"line\n": "x"}}, "bad_value"),
        ({"labels": {"a": "\x1b[31m"}}, "bad_value"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], code: str) -> None:
    assert refusal({"counter": "c", **fields}, kind=COUNTERS) == code


@pytest.mark.parametrize("field", ["label", "value", "increment", "By", "msg", "", "x" * 300])
def test_a_field_that_is_not_known_is_refused_with_those_that_are(field: str) -> None:
    """What it says would be lost, and a wrong total cannot be taken back."""
    decoded = take(
        json.dumps([{"counter": "a"}, {"counter": "c", "by": 1, field: 5}, {"counter": "b"}]),
        kind=COUNTERS,
    )
    assert [record.message for record in decoded.records["default"]] == ["a", "b"]
    (rejection,) = decoded.rejections
    assert (rejection.index, rejection.code) == (1, "unknown_field")
    assert rejection.detail == (
        f"{field[:63]!r} is no field of an increment; known are counter, by, labels, service, "
        "trace_id, span_id, timestamp, ts, time, @timestamp, tenant"
    )


@pytest.mark.parametrize("usual", [True, False])
def test_every_known_field_is_taken(usual: bool) -> None:
    # A time without an offset is read the patient way.
    when = "2026-11-22T08:00:00Z" if usual else "2026-11-22T08:00:00"
    times = dict.fromkeys(("timestamp", "ts", "time", "@timestamp"), when)
    texts = dict.fromkeys(("service", "trace_id", "span_id"), "x")
    fields = {"counter": "c", "by": 2, "labels": {}, "tenant": "default", **times, **texts}
    assert set(fields) == set(KNOWN)
    assert read_increment(one(fields, kind=COUNTERS).payload) == (("c", "{}"), 2)


def test_a_fraction_says_what_to_do() -> None:
    (rejection,) = take('{"counter": "c", "by": 0.5}', kind=COUNTERS).rejections
    assert "count in a smaller unit" in rejection.detail


@pytest.mark.parametrize(
    "same",
    [
        '{"counter":"c","labels":{"b":"2","a":"1"}}',
        '{"labels": {"a": "1", "b": "2"}, "counter": "c", "by": 1}',
        '{"counter":"c","labels":{"a":1,"b":"2"},"timestamp":1790000000}',
        '{"counter":"\\u0063","labels":{"\\u0061":"1","b":2}}',
    ],
)
def test_one_counter_however_it_is_written(same: str) -> None:
    assert read_increment(one(same, kind=COUNTERS).payload) == (("c", '{"a":"1","b":"2"}'), 1)


def test_truth_is_a_word() -> None:
    record = one({"counter": "c", "labels": {"on": True, "off": False, "n": 1}}, kind=COUNTERS)
    assert read_increment(record.payload)[0][1] == '{"n":"1","off":"false","on":"true"}'


@given(
    name=st.text(min_size=1, max_size=300),
    by=st.integers() | st.floats(allow_nan=False) | st.none() | st.booleans(),
    labels=st.none()
    | st.dictionaries(
        st.text(max_size=70), st.text(max_size=270) | st.integers() | st.booleans(), max_size=20
    ),
)
def test_whatever_is_taken_in_can_be_added_up(name: str, by: Any, labels: Any) -> None:
    """The door and the sink read a payload alike: nothing taken in is a dead letter later."""
    body = json.dumps({"counter": name, "by": by, "labels": labels})
    decoded = take(body, kind=COUNTERS)
    for record in decoded.records.get("default", []):
        (counter, text), amount = read_increment(record.payload)
        assert counter == name
        assert amount == (1 if by is None else by)
        assert set(json.loads(text)) == set(labels or {})
