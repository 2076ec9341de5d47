"""Health monitoring as configuration: groups, targets, maintenance, channels, rules, status pages.

Rows are found by name (maintenance by title, status pages by slug).  Secrets leave only as
references to the environment; a secret that is stored here is named in `secrets` and kept when the
file is applied to the same installation.  What each kind of row says of itself is here; how it is
planned and written is in `configrows` and `configwriter`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from django.contrib.auth import get_user_model
from django.utils.dateparse import parse_datetime, parse_time

from control.config.export import EntryError, register_section
from healthmon.notify.models import Channel, NotificationRule
from healthmon.pages.models import StatusPage
from healthmon.targets.configrows import Column, Options, Reference, Rows, RowSection
from healthmon.targets.models import MaintenanceWindow, Tag, Target, TargetGroup
from sinks.options import OptionsError, secret_names
from sinks.secrets import SecretError

EVENTS = ("down", "recovered", "degraded", "unknown", "flapping", "slo", "certificate", "reminder")

_TAGS = Reference(model=Tag, implied=True)
_GROUPS = Reference(model=TargetGroup, section="groups")
_TARGETS = Reference(model=Target, section="targets")
_CHANNELS = Reference(model=Channel, section="channels")
_TEXT, _FLAG = Column(kind=str), Column(kind=bool)
_WHOLE, _NUMBER = Column(kind=int), Column(kind=float)


def sections() -> list[RowSection]:
    return [
        RowSection(rows)
        for rows in (_groups(), _targets(), _maintenance(), _channels(), _rules(), _pages())
    ]


def register() -> None:
    for section in sections():
        register_section(section)


def _groups() -> Rows:
    return Rows(
        section="groups",
        order=100,
        noun="group",
        model=TargetGroup,
        key="name",
        columns={"order": _WHOLE},
        problems=_group_problems,
    )


def _targets() -> Rows:
    return Rows(
        section="targets",
        order=110,
        noun="target",
        model=Target,
        key="name",
        columns={
            "kind": _TEXT,
            "address": _TEXT,
            "interval_s": _NUMBER,
            "timeout_s": _NUMBER,
            "retry_interval_s": _NUMBER,
            "failure_threshold": _WHOLE,
            "success_threshold": _WHOLE,
            "degraded_after_ms": Column(kind=float, none=0),
            "paused": _FLAG,
            "severity": _TEXT,
            "notes": _TEXT,
            "service": _TEXT,
            "slo_percent": Column(kind=float, none=0),
            "slo_days": _WHOLE,
            "public": _FLAG,
            "badge": _FLAG,
        },
        one={
            "group": _GROUPS,
            "owner": Reference(model=get_user_model(), by=get_user_model().USERNAME_FIELD),
        },
        many={"tags": _TAGS, "parents": _TARGETS},
        options=Options(
            set=_set_target_options, plain=_plain_target_options, secret_names=_target_secrets
        ),
        problems=_target_problems,
        check=_no_circles,
    )


def _maintenance() -> Rows:
    when = Column(kind=object, read=_moment, show=_moment_text)
    return Rows(
        section="maintenance",
        order=120,
        noun="maintenance",
        model=MaintenanceWindow,
        key="title",
        columns={
            "description": _TEXT,
            "active": _FLAG,
            "starts_at": when,
            "duration_s": _WHOLE,
            "cron": _TEXT,
            "time_zone": _TEXT,
            "ends_at": Column(kind=object, none="", read=_moment, show=_moment_text),
            "all_targets": _FLAG,
            "public": _FLAG,
        },
        many={"targets": _TARGETS, "tags": _TAGS, "groups": _GROUPS},
        problems=_maintenance_problems,
    )


def _channels() -> Rows:
    return Rows(
        section="channels",
        order=100,
        noun="channel",
        model=Channel,
        key="name",
        columns={"kind": _TEXT, "enabled": _FLAG, "rate_per_minute": _WHOLE},
        options=Options(
            set=_set_channel_options, plain=_plain_channel_options, secret_names=_channel_secrets
        ),
        problems=_channel_problems,
    )


def _rules() -> Rows:
    clock = Column(kind=object, none="", read=_clock, show=lambda at: at.isoformat())
    return Rows(
        section="notification_rules",
        order=120,
        noun="notification rule",
        model=NotificationRule,
        key="name",
        columns={
            "enabled": _FLAG,
            "events": Column(kind=list),
            "min_severity": _TEXT,
            "group_wait_s": _NUMBER,
            "reminder_every_s": _WHOLE,
            "quiet_from": clock,
            "quiet_until": clock,
            "time_zone": _TEXT,
        },
        many={"tags": _TAGS, "groups": _GROUPS, "channels": _CHANNELS},
        problems=_rule_problems,
    )


def _pages() -> Rows:
    return Rows(
        section="status_pages",
        order=120,
        noun="status page",
        model=StatusPage,
        key="slug",
        columns={
            "title": _TEXT,
            "description": _TEXT,
            "published": _FLAG,
            "show_uptime": _FLAG,
            "show_incidents": _FLAG,
            "show_latency": _FLAG,
        },
        many={"groups": _GROUPS, "tags": _TAGS},
    )


def _group_problems(row: TargetGroup) -> dict[str, str]:
    # SQLite would store any number, and PostgreSQL would refuse it.
    return {} if -32_768 <= row.order <= 32_767 else {"order": "from -32768 to 32767"}


def _set_target_options(row: Target, values: dict[str, Any], *, keep: Sequence[str]) -> None:
    from healthmon.probes.registry import KindError
    from healthmon.targets.options import set_options

    try:
        set_options(row, values, keep=keep)
    except KindError as error:
        raise EntryError(f'target "{row.name}": {error}') from None


def _plain_target_options(row: Target) -> dict[str, Any]:
    from healthmon.targets.options import plain_options

    return plain_options(row)


def _target_secrets(row: Target) -> frozenset[str]:
    """The names of secret options; all of them when the kind cannot be asked."""
    from healthmon.probes.registry import KindError, kind_of

    try:
        return secret_names(kind_of(row.kind).Options)
    except KindError:
        return frozenset(row.options) | frozenset(row.secrets)


def _target_problems(row: Target) -> dict[str, str]:
    from healthmon.targets.options import problems

    return problems(row)


def _no_circles(links: dict[str, dict[str, Sequence[str]]]) -> None:
    """No target is its own parent, be it by way of others.  Raises EntryError."""
    done: set[str] = set()
    for start in links:
        trail: dict[str, None] = {}
        stack = [(start, False)]
        while stack:
            name, left = stack.pop()
            if left:
                trail.pop(name, None)
                done.add(name)
            elif name in trail:
                circle = [*list(trail)[list(trail).index(name) :], name]
                raise EntryError(f'target "{name}": parents go in a circle: {" -> ".join(circle)}')
            elif name not in done:
                trail[name] = None
                stack.append((name, True))
                stack += [(parent, False) for parent in links.get(name, {}).get("parents", ())]


def _set_channel_options(row: Channel, values: dict[str, Any], *, keep: Sequence[str]) -> None:
    from healthmon.notify.options import set_options
    from healthmon.notify.registry import KindError

    try:
        set_options(row, values, keep=keep)
    except KindError as error:
        raise EntryError(f'channel "{row.name}": {error}') from None


def _plain_channel_options(row: Channel) -> dict[str, Any]:
    from healthmon.notify.options import plain_options

    return plain_options(row)


def _channel_secrets(row: Channel) -> frozenset[str]:
    from healthmon.notify.registry import KindError, kind_of

    try:
        return secret_names(kind_of(row.kind).Options)
    except KindError:
        return frozenset(row.options) | frozenset(row.secrets)


def _channel_problems(row: Channel) -> dict[str, str]:
    from healthmon.notify.options import decoded
    from healthmon.notify.registry import KindError

    try:
        decoded(row)
    except KindError as error:
        return {"kind": str(error)}
    except (OptionsError, SecretError) as error:
        return {"options": str(error)}
    return {}


def _maintenance_problems(row: MaintenanceWindow) -> dict[str, str]:
    from healthmon.truth.maintenance import Window, problem

    if getattr(row, "starts_at", None) is None:
        return {"starts_at": "is missing; write a time such as 2026-01-31T22:00:00Z"}
    zone = _zone_problem(row.time_zone)
    if zone:
        return zone
    wrong = problem(Window.of(row))
    return {"window": wrong} if wrong else {}


def _rule_problems(row: NotificationRule) -> dict[str, str]:
    found = _zone_problem(row.time_zone)
    unknown = [str(event) for event in row.events if event not in EVENTS]
    if unknown:
        found["events"] = f"unknown: {', '.join(unknown)}; known are {', '.join(EVENTS)}"
    if (row.quiet_from is None) != (row.quiet_until is None):
        found["quiet_until"] = "quiet hours need both quiet_from and quiet_until"
    return found


def _zone_problem(name: str) -> dict[str, str]:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return {"time_zone": f"{name!r} is no time zone; write one such as Europe/Berlin"}
    return {}


def _moment(value: Any) -> datetime:
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


def _moment_text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _clock(value: Any) -> time:
    parsed = value
    if isinstance(value, str):
        try:
            parsed = parse_time(value)
        except ValueError:
            parsed = None
    if not isinstance(parsed, time):
        raise ValueError("must be a time of day such as 22:00")
    return parsed.replace(tzinfo=None)
