"""Health pings and audit events: what they need, and how they are stored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ingest.tables import event_rows, log_rows, ping_rows
from ingest.wire.kinds import EVENTS, HEALTH
from pipeline.record import Record
from tests.ingest.bodies import ARRIVAL_US, one, refusal


@pytest.mark.parametrize(("status", "severity"), [("up", 9), ("degraded", 13), ("down", 17)])
def test_pings(status: str, severity: int) -> None:
    sent = {"service": "s", "status": status, "timestamp": 5, "zone": "a"}
    record = one(sent, kind=HEALTH)
    assert (record.service, record.message, record.severity) == ("s", status, severity)
    assert record.timestamp_us == 5_000_000
    assert json.loads(record.payload) == sent


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"status": "up"}, "missing_field"),
        ({"service": None, "status": "up"}, "missing_field"),
        ({"service": "", "status": "up"}, "missing_field"),
        ({"service": "s"}, "missing_field"),
        ({"service": "s", "status": "UP"}, "bad_value"),
        ({"service": "s", "status": 1}, "wrong_type"),
        ({"service": 1, "status": "up"}, "wrong_type"),
        ({"service": "s", "status": "up", "latency_ms": -1}, "bad_value"),
        ({"service": "s", "status": "up", "latency_ms": "5"}, "wrong_type"),
        ({"service": "s", "status": "up", "latency_ms": True}, "wrong_type"),
        ({"service": "s", "status": "up", "timestamp": "x"}, "bad_timestamp"),
        ({"service": "s", "status": "up", "tenant": "x"}, "wrong_tenant"),
    ],
)
def test_pings_that_are_none(fields: dict[str, Any], code: str) -> None:
    assert refusal(fields, kind=HEALTH) == code


def test_a_latency_beyond_all_numbers() -> None:
    body = '{"service": "s", "status": "up", "latency_ms": 1e999}'
    assert refusal(body, kind=HEALTH) == "bad_value"


@pytest.mark.parametrize("user", ["u-1", 42, -7])
def test_events(user: str | int) -> None:
    sent = {"user_id": user, "action": "login", "ip": "192.0.2.1"}
    record = one(sent, kind=EVENTS)
    assert (record.message, record.severity, record.timestamp_us) == ("login", 9, ARRIVAL_US)
    assert json.loads(record.payload) == sent


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"action": "a"}, "missing_field"),
        ({"user_id": "u"}, "missing_field"),
        ({"user_id": "", "action": "a"}, "missing_field"),
        ({"user_id": True, "action": "a"}, "wrong_type"),
        ({"user_id": 1.5, "action": "a"}, "wrong_type"),
        ({"user_id": 2**63, "action": "a"}, "bad_value"),
        ({"user_id": "u" * 256, "action": "a"}, "too_long"),
        ({"user_id": "u", "action": ["a"]}, "wrong_type"),
    ],
)
def test_events_that_are_none(fields: dict[str, Any], code: str) -> None:
    assert refusal(fields, kind=EVENTS) == code


class _Part:
    """What the row functions read of a part of a batch."""

    tenant = "acme"
    received_us = 7

    def __init__(self, payload: bytes) -> None:
        self.records = [Record(5, 14, "s", "m", "t", "p", payload, id=3)]


def test_rows() -> None:
    payload = b'{"latency_ms": 2, "user_id": 9}'
    part: Any = _Part(payload)
    assert list(log_rows(part)) == [(3, 5, 7, "acme", "WARN", "s", "m", "t", "p", payload)]
    assert list(ping_rows(part)) == [(3, 5, 7, "acme", "s", "m", 2.0, payload)]
    assert list(event_rows(part)) == [(3, 5, 7, "acme", "9", "m", payload)]
    bare: Any = _Part(b"{}")
    assert list(ping_rows(bare)) == [(3, 5, 7, "acme", "s", "m", None, b"{}")]
