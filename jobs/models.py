"""Jobs' models, each declared in the room that owns it."""

from __future__ import annotations

from jobs.bulk.models import BulkAction
from jobs.store.models import (
    Job,
    JobCount,
    JobEvent,
    JobMinute,
    JobStep,
    JobTally,
    Runner,
    TypeGate,
)
from jobs.types.models import DownstreamService, JobSchedule, JobType, TypeStep

__all__ = [
    "BulkAction",
    "DownstreamService",
    "Job",
    "JobCount",
    "JobEvent",
    "JobMinute",
    "JobSchedule",
    "JobStep",
    "JobTally",
    "JobType",
    "Runner",
    "TypeGate",
    "TypeStep",
]
