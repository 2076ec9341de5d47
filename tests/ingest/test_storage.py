"""From the request to the row in this installation's database: what was sent is what is read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.ingest.bodies import take
from tests.ingest.front import Front
from tests.ingest.test_anything import json_values
from tests.ingest.test_wire_poison import HARMLESS, POISON

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def stored(front: Front) -> Callable[[str, bytes | str], list[Any]]:
    """Posts a body and returns the rows of it, once they are stored."""
    from django.apps import apps

    from pipeline.intake.router import Route
    from pipeline.settings import PipelineSettings
    from pipeline.spec import PipelineSpec
    from sinks.backends.database import DatabaseOptions, DatabaseSink

    sink = DatabaseSink(DatabaseOptions(), name="database")
    front.engine.configure(
        [
            PipelineSpec(
                key="database",
                name="database",
                sink_factory=lambda: sink,
                route=Route(),
                required=True,
                paused=False,
                settings=PipelineSettings(max_workers=1),
                fingerprint="database",
            )
        ]
    )
    models = {"/logs": "LogRecord", "/health": "HealthPing", "/event": "AuditEvent"}

    def post(path: str, body: bytes | str) -> list[Any]:
        model = apps.get_model("ingest", models[path])
        newest = model.objects.order_by("-id").values_list("id", flat=True).first() or 0
        response = front.post(f"{path}?ack=stored", body, "application/x-ndjson")
        told = json.loads(response.content)
        assert (response.status_code, told["ack"]) == (202, "stored"), told
        ledger: Any = front.engine.stats()["ledger"]
        row = ledger[-1]
        assert (row["dead_lettered"], row["dropped"]) == (0, {})
        return list(model.objects.filter(id__gt=newest).order_by("id"))

    return post


def test_every_field_of_every_type(stored: Callable[..., list[Any]]) -> None:
    sent = {
        "timestamp": "2026-07-01T12:00:00.123456+02:00",
        "level": "warning",
        "service": "checkout",
        "message": "<script>alert(1)</script>\x1b[31m",
        "trace_id": "t" * 32,
        "span_id": "p" * 16,
        "more": {"list": [1, 2.5, None, True, "x"]},
    }
    (log,) = stored("/logs", json.dumps(sent))
    assert log.timestamp == datetime(2026, 7, 1, 10, 0, 0, 123456, UTC)
    assert (log.tenant, log.level, log.service) == ("default", "WARN", "checkout")
    assert (log.message, log.trace_id, log.span_id) == (sent["message"], "t" * 32, "p" * 16)
    assert log.payload == sent
    (big,) = stored("/logs", '{"big": 123456789012345678901234567890}')
    assert big.payload == {"big": 123456789012345678901234567890}
    assert abs((datetime.now(UTC) - log.received_at).total_seconds()) < 600

    (ping,) = stored("/health", '{"service": "db", "status": "down", "latency_ms": 12}')
    assert (ping.service, ping.status, ping.latency_ms) == ("db", "down", 12.0)
    (bare,) = stored("/health", '{"service": "db", "status": "up"}')
    assert bare.latency_ms is None
    (event,) = stored("/event", '{"user_id": 42, "action": "login"}')
    assert (event.user_id, event.action, event.payload["user_id"]) == ("42", "login", 42)


def as_numbers(value: Any) -> Any:
    """Numbers as floats: Python reads 1e3 and 1000, which are one JSON number, as two types."""
    if isinstance(value, dict):
        return {name: as_numbers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [as_numbers(inner) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return value


@pytest.mark.parametrize("year", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
def test_times_far_away(stored: Callable[..., list[Any]], year: str) -> None:
    (log,) = stored("/logs", json.dumps({"timestamp": year}))
    assert log.timestamp == datetime.fromisoformat(year)


def test_what_looks_like_poison_is_stored_as_it_is(stored: Callable[..., list[Any]]) -> None:
    rows = stored("/logs", "\n".join(HARMLESS))
    assert as_numbers([row.payload for row in rows]) == as_numbers(
        [json.loads(line) for line in HARMLESS]
    )


def test_poison_never_reaches_the_store(stored: Callable[..., list[Any]]) -> None:
    poison = b"\n".join(line for line, code in POISON.values() if code != "record_too_large")
    rows = stored("/logs", b'{"message":"first"}\n' + poison + b'\n{"message":"last"}')
    assert [row.message for row in rows] == ["first", "last"]


@given(
    st.lists(
        st.dictionaries(st.just("x") | st.text(max_size=5), json_values, max_size=4),
        min_size=1,
        max_size=8,
    )
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_json_is_accepted_is_read_back_equal(
    stored: Callable[..., list[Any]], values: list[dict[str, Any]]
) -> None:
    lines = [json.dumps({"message": "m", "y": value}) for value in values]
    good = [value for value, line in zip(values, lines, strict=True) if not take(line).rejected]
    rows = stored("/logs", "\n".join([*lines, '{"y": {}}']))
    assert as_numbers([row.payload["y"] for row in rows]) == as_numbers([*good, {}])
