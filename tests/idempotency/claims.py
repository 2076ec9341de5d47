"""Claims as the tests make them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from control.idempotency.claims import Outcome, Wanted, claim_all

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(hours=24)


def wanted(key: str = "k", **changes: Any) -> Wanted:
    fields: dict[str, Any] = {
        "id": uuid.uuid4(),
        "tenant": "default",
        "path": "/logs",
        "key": key,
        "digest": "d" * 64,
        "log_id": "log-1",
        "parts": ("default",),
        "status": 202,
        "response": '{"accepted":1}',
    }
    return Wanted(**{**fields, **changes})


def claim_one(one: Wanted, *, now: datetime = NOW) -> Outcome:
    (outcome,) = claim_all([one], now=now, keep_for=DAY)
    return outcome
