"""What may be wrong with a row that a configuration file wants, by field.

Pure functions but for the environment that secrets refer to.
"""

from __future__ import annotations

from collections.abc import Sequence
from zoneinfo import ZoneInfo

from control.config.export import EntryError
from healthmon.notify.models import Channel, NotificationRule
from healthmon.targets.models import MaintenanceWindow, Target, TargetGroup
from sinks.options import OptionsError
from sinks.secrets import SecretError

EVENTS = ("down", "recovered", "degraded", "unknown", "flapping", "slo", "certificate", "reminder")


def group_problems(row: TargetGroup) -> dict[str, str]:
    # SQLite would store any number, and PostgreSQL would refuse it.
    return {} if -32_768 <= row.order <= 32_767 else {"order": "from -32768 to 32767"}


def target_problems(row: Target) -> dict[str, str]:
    from healthmon.targets.options import problems

    return problems(row)


def no_circles(links: dict[str, dict[str, Sequence[str]]]) -> None:
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


def channel_problems(row: Channel) -> dict[str, str]:
    from healthmon.notify.options import decoded
    from healthmon.notify.registry import KindError

    try:
        decoded(row)
    except KindError as error:
        return {"kind": str(error)}
    except (OptionsError, SecretError) as error:
        return {"options": str(error)}
    return {}


def maintenance_problems(row: MaintenanceWindow) -> dict[str, str]:
    from healthmon.truth.maintenance import Window, problem

    if getattr(row, "starts_at", None) is None:
        return {"starts_at": "is missing; write a time such as 2026-01-31T22:00:00Z"}
    zone = _zone_problem(row.time_zone)
    if zone:
        return zone
    wrong = problem(Window.of(row))
    return {"window": wrong} if wrong else {}


def rule_problems(row: NotificationRule) -> dict[str, str]:
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
