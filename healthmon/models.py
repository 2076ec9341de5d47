"""Every model of health monitoring, from its room, where Django looks for them."""

from healthmon.heartbeats.models import Heartbeat, Ping
from healthmon.history.models import ProbeResult, Rollup, RollupDue
from healthmon.leases.models import Checker, ProbeSlot
from healthmon.notify.models import Channel, Notice, NotificationRule
from healthmon.pages.models import StatusPage
from healthmon.targets.models import MaintenanceWindow, Tag, Target, TargetGroup
from healthmon.truth.models import BurnAlert, Flip, Incident, IncidentEntry, TargetState

__all__ = [
    "BurnAlert",
    "Channel",
    "Checker",
    "Flip",
    "Heartbeat",
    "Incident",
    "IncidentEntry",
    "MaintenanceWindow",
    "Notice",
    "NotificationRule",
    "Ping",
    "ProbeResult",
    "ProbeSlot",
    "Rollup",
    "RollupDue",
    "StatusPage",
    "Tag",
    "Target",
    "TargetGroup",
    "TargetState",
]
