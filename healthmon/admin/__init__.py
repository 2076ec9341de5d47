"""The admin of health monitoring: what autodiscovery finds."""

from healthmon.admin.grouping import MaintenanceWindowAdmin, TagAdmin, TargetGroupAdmin
from healthmon.admin.incidents import IncidentAdmin
from healthmon.admin.targets import TargetAdmin
from healthmon.notify.admin import ChannelAdmin, NotificationRuleAdmin

__all__ = [
    "ChannelAdmin",
    "IncidentAdmin",
    "MaintenanceWindowAdmin",
    "NotificationRuleAdmin",
    "TagAdmin",
    "TargetAdmin",
    "TargetGroupAdmin",
]
