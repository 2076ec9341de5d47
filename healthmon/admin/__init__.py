"""The admin of health monitoring: what autodiscovery finds."""

from healthmon.admin.grouping import MaintenanceWindowAdmin, TagAdmin, TargetGroupAdmin
from healthmon.admin.incidents import IncidentAdmin
from healthmon.admin.targets import TargetAdmin

__all__ = [
    "IncidentAdmin",
    "MaintenanceWindowAdmin",
    "TagAdmin",
    "TargetAdmin",
    "TargetGroupAdmin",
]
