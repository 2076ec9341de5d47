"""Times as a configuration file holds them.  Pure functions."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Any

from django.utils.dateparse import parse_datetime, parse_time


def moment(value: Any) -> datetime:
    parsed = value
    if isinstance(value, str):
        try:
            parsed = parse_datetime(value)
        except ValueError:
            parsed = None
    elif isinstance(value, date) and not isinstance(value, datetime):
        parsed = datetime.combine(value, time())
    if not isinstance(parsed, datetime):
        raise ValueError("must be a time such as 2026-01-31T22:00:00Z")
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    try:
        return parsed.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time such as 2026-01-31T22:00:00Z") from None


def moment_text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def clock_time(value: Any) -> time:
    parsed = value
    if isinstance(value, str):
        try:
            parsed = parse_time(value)
        except ValueError:
            parsed = None
    if not isinstance(parsed, time):
        raise ValueError("must be a time of day such as 22:00")
    return parsed.replace(tzinfo=None)
