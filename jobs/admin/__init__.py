"""The admin of jobs: what autodiscovery finds."""

from jobs.admin.bulkadmin import BulkActionAdmin
from jobs.admin.downstreamadmin import DownstreamAdmin
from jobs.admin.jobadmin import JobAdmin
from jobs.admin.scheduleadmin import ScheduleAdmin
from jobs.admin.typeadmin import JobTypeAdmin

__all__ = ["BulkActionAdmin", "DownstreamAdmin", "JobAdmin", "JobTypeAdmin", "ScheduleAdmin"]
