"""What a log record's fields may look like, and what becomes of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ingest.wire.timestamps import MAX_US, MIN_US
from tests.ingest.bodies import ARRIVAL_US, one, refusal

NOW_US = 1_782_900_000_123_456
NOW = "2026-07-01T10:00:00.123456Z"


def test_now_is_what_the_tables_below_say() -> None:
    assert datetime.fromtimestamp(NOW_US // 1_000_000, UTC).isoformat() == NOW[:19] + "+00:00"


@pytest.mark.parametrize("field", ["timestamp", "ts", "time", "@timestamp"])
@pytest.mark.parametrize(
    ("sent", "expected_us"),
    [
        (NOW, NOW_US),
        ("2026-07-01T12:00:00.123456+02:00", NOW_US),
        ("2026-07-01 10:00:00.123456Z", NOW_US),
        ("2026-07-01T10:00:00.123456", NOW_US),
        ("2026-07-01T10:00:00.123456499Z", NOW_US),
        (NOW_US // 1_000_000, NOW_US // 1_000_000 * 1_000_000),
        (NOW_US // 1_000, NOW_US // 1_000 * 1_000),
        (NOW_US, NOW_US),
        (NOW_US * 1000 + 999, NOW_US),
        (NOW_US / 1_000_000, NOW_US),
        (NOW_US / 1_000, NOW_US),
        (str(NOW_US // 1_000), NOW_US // 1_000 * 1_000),
        ("1782900000.123456", NOW_US),
        (0, 0),
        (-1, -1_000_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000_000),
        ("0001-01-01T00:00:00Z", MIN_US),
        ("9999-12-31T23:59:59.999999Z", MAX_US),
        (None, ARRIVAL_US),
    ],
)
def test_timestamps(field: str, sent: Any, expected_us: int) -> None:
    assert one({field: sent, "message": "m"}).timestamp_us == expected_us


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("yesterday", "bad_timestamp"),
        ("", "bad_timestamp"),
        ("2026-13-01T00:00:00Z", "bad_timestamp"),
        ("2026-07-01", "bad_timestamp"),
        ("10000-01-01T00:00:00Z", "bad_timestamp"),
        ("0000-01-01T00:00:00Z", "bad_timestamp"),
        ("0001-01-01T00:00:00+05:00", "bad_timestamp"),
        ("9999-12-31T23:59:59-05:00", "bad_timestamp"),
        ("9999-12-31T23:59:60Z", "bad_timestamp"),
        (10**30, "bad_timestamp"),
        (1e300, "bad_timestamp"),
        (-99_999_999_999, "bad_timestamp"),
        (True, "wrong_type"),
        ([], "wrong_type"),
        ({"seconds": 1}, "wrong_type"),
    ],
)
def test_timestamps_that_are_none(sent: Any, code: str) -> None:
    assert refusal({"timestamp": sent, "message": "m"}) == code


def test_a_huge_float_is_no_time() -> None:
    assert refusal('{"timestamp": 1e999}') == "bad_timestamp"


@pytest.mark.parametrize(
    ("fields", "severity"),
    [
        ({}, 9),
        ({"level": "INFO"}, 9),
        ({"level": "debug"}, 5),
        ({"level": "Warning"}, 13),
        ({"level": " wArN "}, 13),
        ({"level": "critical"}, 21),
        ({"level": "PANIC"}, 21),
        ({"level": "emerg"}, 21),
        ({"level": "fatal"}, 21),
        ({"level": "err"}, 17),
        ({"level": "notice"}, 9),
        ({"level": "verbose"}, 1),
        ({"level": "no such thing"}, 9),
        ({"level": ""}, 9),
        ({"level": None, "severity": "error"}, 17),
        ({"severity": "TRACE"}, 1),
        ({"level": 10}, 5),
        ({"level": 20}, 9),
        ({"level": 30}, 13),
        ({"level": 35}, 13),
        ({"level": 40}, 17),
        ({"level": 50}, 21),
        ({"level": 40.0}, 17),
        ({"level": "40"}, 17),
        ({"level": 5}, 1),
        ({"level": 0}, 9),
        ({"level": -3}, 9),
        ({"level": 10**30}, 9),
        ({"severity": 1}, 1),
        ({"severity": 10}, 10),
        ({"severity": 17}, 17),
        ({"severity": 24}, 24),
        ({"severity": 25}, 9),
        ({"level": "error", "severity": 1}, 17),
    ],
)
def test_levels(fields: dict[str, Any], severity: int) -> None:
    assert one({**fields, "message": "m"}).severity == severity


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"message": "a"}, "a"),
        ({"msg": "a"}, "a"),
        ({"body": "a"}, "a"),
        ({"message": "a", "msg": "b", "body": "c"}, "a"),
        ({"msg": "b", "body": "c"}, "b"),
        ({"message": "", "msg": "b"}, ""),
        ({"message": None, "msg": "b"}, "b"),
        ({}, ""),
        ({"message": "zwölf \N{SNOWMAN} \U0001f600"}, "zwölf \N{SNOWMAN} \U0001f600"),
        ({"message": "a\nb\tc"}, "a\nb\tc"),
        # An alias that does not count may be anything.
        ({"message": "a", "body": {"deep": 1}}, "a"),
        ({"message": "a", "msg": 5, "timestamp": NOW, "time": "12ms"}, "a"),
    ],
)
def test_messages(fields: dict[str, Any], message: str) -> None:
    assert one(fields).message == message


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"message": 5}, "wrong_type"),
        ({"body": {"a": 1}}, "wrong_type"),
        ({"service": 5}, "wrong_type"),
        ({"service": ["a"]}, "wrong_type"),
        ({"trace_id": 5}, "wrong_type"),
        ({"span_id": {}}, "wrong_type"),
        ({"level": True}, "wrong_type"),
        ({"level": 1.5}, "wrong_type"),
        ({"level": []}, "wrong_type"),
        ({"tenant": 5}, "wrong_type"),
        ({"service": "s" * 256}, "too_long"),
        ({"trace_id": "s" * 256}, "too_long"),
        ({"tenant": "other"}, "wrong_tenant"),
    ],
)
def test_fields_of_a_wrong_type_are_refused(fields: dict[str, Any], code: str) -> None:
    assert refusal(fields) == code


def test_envelope_fields() -> None:
    record = one({"service": "s" * 255, "trace_id": "t", "span_id": "p", "tenant": "default"})
    assert (record.service, record.trace_id, record.span_id) == ("s" * 255, "t", "p")
    assert one({"service": None, "trace_id": None, "tenant": None}).service == ""


@pytest.mark.parametrize(
    "sent",
    [
        '{"message": "a", "big": 12345678901234567890123, "exact": 0.1000, "e": 1e300}',
        '{ "message" : "a" , "nested" : { "a" : [ 1 , { "b" : null } ] } }',
        '{"message": "\\u00e9 \\ud83d\\ude00 \\\\u0000 \\/", "ключ": "значение"}',
        '{"a": 1, "a": 2}',
        "{}",
    ],
)
def test_what_was_sent_is_kept(sent: str) -> None:
    assert json.loads(one(sent).payload) == json.loads(sent)


def test_a_layout_over_lines_is_kept_on_one() -> None:
    sent = json.dumps({"message": "a\nb", "list": [1, {"c": "d"}]}, indent=2)
    for layout in (sent, sent.replace("\n", "\r\n"), f"\n{sent}\n"):
        payload = one(layout).payload
        assert not {10, 13} & set(payload)
        assert json.loads(payload) == json.loads(sent)
