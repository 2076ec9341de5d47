"""What a submission says, checked field by field: every mistake is named by its place.

Pure but for the type's catalogue and schema, which are in memory; runs on request threads.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from django.utils.dateparse import parse_datetime

from control.auth.keys import Principal
from control.outbound.policy import AddressPolicy
from control.outbound.urls import url_problem
from jobs.payloads import PayloadError, payload_errors
from jobs.states import DEFAULT_PRIORITY, HIGHEST_PRIORITY, LOWEST_PRIORITY
from jobs.types import catalogue
from jobs.types.spec import TypeSpec

FIELDS = (
    "type", "payload", "priority", "run_at", "deadline", "service", "webhook_url", "tenant",
)  # fmt: skip
_KNOWN = frozenset(FIELDS)
MAX_SERVICE_CHARS = 200
MAX_URL_CHARS = 500
# What is told of many.
MAX_UNKNOWN, MAX_NAMED, MAX_COMPARED = 10, 10, 200
MAX_AHEAD = timedelta(days=3650)
_TENANT = re.compile(r"[a-z0-9\-_.]{1,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A submission that may be taken.  `run_at` None: now."""

    type: TypeSpec
    payload: Any
    tenant: str
    priority: int
    run_at: datetime | None
    deadline_at: datetime | None
    deadline_s: float | None
    service: str
    webhook_url: str


class Invalid(Exception):
    """422: these fields are wrong; `of_type` where it is only the type's name."""

    def __init__(self, errors: list[PayloadError], *, reason: str = "payload") -> None:
        super().__init__()
        self.errors = errors
        self.reason = reason


class TypeBroken(Exception):
    """The type is there, and cannot be used until an operator mends it."""


class _Reader:
    """Reads one body's fields and gathers what is wrong with them."""

    def __init__(self, body: dict[str, Any], now: datetime) -> None:
        self._body = body
        self._now = now
        self.errors: list[PayloadError] = []

    def wrong(self, name: str, code: str, detail: str) -> None:
        self.errors.append(PayloadError(pointer=f"/{name}", code=code, detail=detail))

    def text(self, name: str, *, longest: int) -> str:
        value = self._body.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.wrong(name, "type", "must be a text")
            return ""
        if len(value) > longest:
            self.wrong(name, "max_length", f"has more than {longest} characters")
            return ""
        return value

    def priority(self, default: int) -> int:
        value = self._body.get("priority")
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            self.wrong("priority", "type", "must be a whole number")
        elif not LOWEST_PRIORITY <= value <= HIGHEST_PRIORITY:
            self.wrong("priority", "range", f"must be from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}")
        else:
            return value
        return default

    def moment(self, name: str, *, after: datetime | None) -> datetime | None:
        """A time, or seconds from `after`."""
        value = self._body.get(name)
        if value is None:
            return None
        found: datetime | None = None
        if isinstance(value, str):
            found = _parsed(value)
            if found is None:
                self.wrong(name, "time", "is no time such as 2026-01-31T09:30:00Z, nor seconds")
                return None
        elif isinstance(value, bool) or not isinstance(value, int | float):
            self.wrong(name, "type", "must be a time such as 2026-01-31T09:30:00Z, or seconds")
            return None
        elif not math.isfinite(value) or not 0 <= value <= MAX_AHEAD.total_seconds():
            self.wrong(name, "range", "as seconds must be from 0 to ten years; else write a time")
            return None
        else:
            found = (after or self._now) + timedelta(seconds=value)
        if found > self._now + 2 * MAX_AHEAD:
            self.wrong(name, "range", "is more than ten years ahead")
            return None
        return found


def _parsed(text: str) -> datetime | None:
    try:
        found = parse_datetime(text[:64])
    except ValueError:
        return None
    if found is None or not 1971 <= found.year <= 9000:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def read_submission(
    body: Any, *, principal: Principal, now: datetime, policy: AddressPolicy
) -> Wanted:
    """Raises Invalid, TypeBroken, or `django.db.Error` where an unknown type is looked up."""
    if not isinstance(body, dict):
        raise Invalid([PayloadError(pointer="", code="type", detail="must be a JSON object")])
    reader = _Reader(body, now)
    reader.errors += [_unknown(name) for name in sorted(body.keys() - _KNOWN)[:MAX_UNKNOWN]]
    type = _type(reader, body.get("type"))
    tenant = _tenant(reader, body.get("tenant"), principal)
    priority = reader.priority(DEFAULT_PRIORITY if type is None else type.default_priority)
    run_at = reader.moment("run_at", after=now)
    if run_at is not None and run_at <= now:
        run_at = None
    deadline_at = reader.moment("deadline", after=run_at)
    if deadline_at is not None and deadline_at <= (run_at or now):
        when = "over already" if deadline_at <= now else "before it may run"
        reader.wrong("deadline", "range", f"is {when}")
    service = reader.text("service", longest=MAX_SERVICE_CHARS)
    webhook_url = _webhook(reader, type, policy)
    payload = body.get("payload", {})
    if type is None:
        raise Invalid(reader.errors, reason="type")
    for error in payload_errors(type.id, type.payload_schema, payload):
        reader.errors.append(
            PayloadError(pointer=f"/payload{error.pointer}", code=error.code, detail=error.detail)
        )
    if reader.errors:
        raise Invalid(reader.errors)
    return Wanted(
        type=type,
        payload=payload,
        tenant=tenant,
        priority=priority,
        run_at=run_at,
        deadline_at=deadline_at,
        deadline_s=None if deadline_at is not None else type.deadline_s,
        service=service,
        webhook_url=webhook_url,
    )


def escaped(name: str) -> str:
    """As a part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def _unknown(name: str) -> PayloadError:
    near = difflib.get_close_matches(name[:100], FIELDS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(FIELDS)}"
    return PayloadError(
        pointer=f"/{escaped(name[:100])}", code="unknown", detail=f"there is no such field; {hint}"
    )


def _type(reader: _Reader, name: Any) -> TypeSpec | None:
    """None where it is wrong, which is said.  Raises TypeBroken."""
    if name is None:
        reader.wrong("type", "required", f"is missing; {_known_types()}")
        return None
    if not isinstance(name, str):
        reader.wrong("type", "type", "must be a text")
        return None
    found = catalogue.lookup(name)
    if found is None:
        if f"type {name}" in catalogue.current().broken:
            raise TypeBroken(name[:63])
        words = f"there is no job type {name[:63]!r}; {_known_types(name[:63])}"
        reader.wrong("type", "unknown_type", words)
        return None
    if not found.enabled:
        words = f"the job type {name!r} takes no jobs now: it is disabled"
        reader.wrong("type", "disabled_type", words)
        return None
    return found


def _known_types(like: str = "") -> str:
    names = sorted(type.name for type in catalogue.current().types.values() if type.enabled)
    made = "types are made in the admin, under Jobs, Job types"
    if not names:
        return f"there are none yet: {made}"
    if near := difflib.get_close_matches(like, names[:MAX_COMPARED], n=1):
        return f"did you mean {near[0]}?"
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"known are {', '.join(names[:MAX_NAMED])}{more}; {made}"


def _tenant(reader: _Reader, sent: Any, principal: Principal) -> str:
    if sent is None or sent == principal.tenant:
        return principal.tenant
    if not isinstance(sent, str) or not _TENANT.fullmatch(sent):
        reader.wrong("tenant", "type", "is no tenant's name")
    elif not principal.any_tenant:
        reader.wrong("tenant", "tenant", "is not the API key's own; leave it out")
    else:
        return sent
    return principal.tenant


def _webhook(reader: _Reader, type: TypeSpec | None, policy: AddressPolicy) -> str:
    url = reader.text("webhook_url", longest=MAX_URL_CHARS)
    if not url:
        return ""
    if type is not None and not type.job_webhooks:
        reader.wrong("webhook_url", "forbidden", "jobs of this type may not name one")
        return ""
    problem = url_problem(url) or _host_problem(url, policy)
    if problem:
        reader.wrong("webhook_url", "url", problem)
        return ""
    return url


def _host_problem(url: str, policy: AddressPolicy) -> str:
    """What can be told before anything is resolved; the address connected to is judged again."""
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        return "has a user or a password in it, which would be shown"
    host = parts.hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return ""
    denied = policy.problem(host)
    return f"may not be called: {denied}" if denied else ""
