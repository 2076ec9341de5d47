"""Health monitoring as configuration: groups, targets, maintenance, channels, rules, status pages.

Rows are found by name (maintenance by title, status pages by slug).  Secrets leave only as
references to the environment; a secret that is stored here is named in `secrets` and kept when the
file is applied to the same installation.  What each kind of row says of itself is here; how it is
planned and written is in `configplan` and `configwriter`.
"""

from __future__ import annotations

from django.contrib.auth import get_user_model

from control.config.export import register_section
from healthmon.notify.models import Channel, NotificationRule
from healthmon.pages.models import SWITCHES, StatusPage
from healthmon.targets.configdoors import CHANNEL_OPTIONS, TARGET_OPTIONS
from healthmon.targets.configmoments import clock_time, moment, moment_text
from healthmon.targets.configplan import RowSection
from healthmon.targets.configproblems import (
    channel_problems,
    group_problems,
    maintenance_problems,
    no_circles,
    rule_problems,
    target_problems,
)
from healthmon.targets.configrows import Column, Reference, Rows
from healthmon.targets.models import MaintenanceWindow, Tag, Target, TargetGroup

_TAGS = Reference(model=Tag, implied=True)
_GROUPS = Reference(model=TargetGroup, section="groups", implied=True)
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
        problems=group_problems,
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
            "degraded_after_ms": Column(kind=float, optional=True, blank=0),
            "paused": _FLAG,
            "severity": _TEXT,
            "notes": _TEXT,
            "service": _TEXT,
            "slo_percent": Column(kind=float, optional=True, blank=0),
            "slo_days": _WHOLE,
            "public": _FLAG,
            "badge": _FLAG,
        },
        one={
            "group": _GROUPS,
            "owner": Reference(model=get_user_model(), by=get_user_model().USERNAME_FIELD),
        },
        many={"tags": _TAGS, "parents": _TARGETS},
        options=TARGET_OPTIONS,
        problems=target_problems,
        check=no_circles,
    )


def _maintenance() -> Rows:
    when = Column(kind=object, read=moment, show=moment_text)
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
            "ends_at": Column(kind=object, optional=True, blank="", read=moment, show=moment_text),
            "all_targets": _FLAG,
            "public": _FLAG,
        },
        many={"targets": _TARGETS, "tags": _TAGS, "groups": _GROUPS},
        problems=maintenance_problems,
    )


def _channels() -> Rows:
    return Rows(
        section="channels",
        order=100,
        noun="channel",
        model=Channel,
        key="name",
        columns={"kind": _TEXT, "enabled": _FLAG, "rate_per_minute": _WHOLE},
        options=CHANNEL_OPTIONS,
        problems=channel_problems,
    )


def _rules() -> Rows:
    clock = Column(
        kind=object, optional=True, blank="", read=clock_time, show=lambda at: at.isoformat()
    )
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
        problems=rule_problems,
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
            **dict.fromkeys(SWITCHES, _FLAG),
        },
        many={"groups": _GROUPS, "tags": _TAGS},
    )
