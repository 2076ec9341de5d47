"""Jobs and their story as rows, who runs them, and how many there are of what.

Nobody writes these but the Store: each change of a job's state adds its event and its tally in
the same transaction.
"""

from __future__ import annotations

from typing import ClassVar

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models

from jobs.ids import new_job_id
from jobs.states import DEFAULT_PRIORITY, QUEUED, RUNNING, SCHEDULED, STATES, STEP_STATES
from jobs.types.models import JobType

ERROR_CHARS = 2_000


class Job(models.Model):
    """`claim` counts every claim and fences a late runner's writes; `attempts` those that count."""

    id = models.UUIDField(primary_key=True, default=new_job_id, editable=False)
    type = models.ForeignKey(
        JobType, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="jobs"
    )
    tenant = models.CharField(max_length=63, default="default")
    state = models.CharField(max_length=9, default=QUEUED, choices=[(s, s) for s in STATES])
    reason = models.CharField(max_length=16, blank=True, default="")
    priority = models.PositiveSmallIntegerField(default=DEFAULT_PRIORITY)
    payload = models.JSONField(default=dict, encoder=DjangoJSONEncoder)
    correlation_id = models.CharField(max_length=128, blank=True, default="")
    service = models.CharField(max_length=200, blank=True, default="")
    submitted_by = models.CharField(max_length=200, blank=True, default="")
    request_id = models.CharField(max_length=128, blank=True, default="")
    traceparent = models.CharField(max_length=64, blank=True, default="")
    webhook_url = models.CharField(max_length=500, blank=True, default="")
    schedule = models.CharField(max_length=63, blank=True, default="")
    attempts = models.PositiveIntegerField(default=0)
    claim = models.PositiveIntegerField(default=0)
    retries = models.PositiveIntegerField(default=0, help_text="How often somebody asked for more.")
    created_at = models.DateTimeField()
    run_at = models.DateTimeField()
    deadline_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True, help_text="Of the last attempt.")
    finished_at = models.DateTimeField(null=True, blank=True)
    runner = models.CharField(max_length=32, blank=True, default="")
    worker = models.CharField(max_length=64, blank=True, default="")
    cancel_asked_at = models.DateTimeField(null=True, blank=True)
    result = models.JSONField(null=True, blank=True, encoder=DjangoJSONEncoder)
    error = models.TextField(blank=True, default="")

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["type", "-priority", "id"],
                name="jobs_job_queued",
                condition=models.Q(state=QUEUED),
            ),
            models.Index(
                fields=["run_at"], name="jobs_job_scheduled", condition=models.Q(state=SCHEDULED)
            ),
            models.Index(
                fields=["runner"], name="jobs_job_running", condition=models.Q(state=RUNNING)
            ),
            models.Index(fields=["state", "id"], name="jobs_job_state"),
            # With the state, so that those of another state are passed over without being read.
            models.Index(fields=["type", "id", "state"], name="jobs_job_type"),
            # Not only of those that have one: SQLite would not use an index with that condition.
            models.Index(fields=["correlation_id", "id"], name="jobs_job_correlation"),
            models.Index(fields=["service", "id"], name="jobs_job_service"),
            models.Index(
                fields=["tenant", "id"],
                name="jobs_job_tenant",
                condition=~models.Q(tenant="default"),
            ),
            models.Index(
                fields=["state", "finished_at"],
                name="jobs_job_finished",
                condition=models.Q(finished_at__isnull=False),
            ),
            # Of a type with days of its own: what another keeps for long is not looked at.
            models.Index(
                fields=["type", "state", "finished_at"],
                name="jobs_job_kept",
                condition=models.Q(finished_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)


class JobStep(models.Model):
    """What became of one step of one job; made when the step first begins."""

    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, db_constraint=False, db_index=False, related_name="steps"
    )
    name = models.CharField(max_length=63)
    stage = models.PositiveSmallIntegerField(default=1)
    state = models.CharField(max_length=10, choices=[(s, s) for s in STEP_STATES])
    attempts = models.PositiveIntegerField(default=0)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    duration_ms = models.FloatField(null=True, blank=True)
    status_code = models.PositiveSmallIntegerField(null=True, blank=True)
    result = models.JSONField(null=True, blank=True, encoder=DjangoJSONEncoder)
    error = models.TextField(blank=True, default="")

    class Meta:
        ordering: ClassVar[list[str]] = ["stage", "id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["job", "name"], name="jobs_jobstep_once")
        ]

    def __str__(self) -> str:
        return self.name


class JobEvent(models.Model):
    """A change of a job's state, or what was said of it; never changed, but see `holding`."""

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, db_constraint=False, related_name="events"
    )
    at = models.DateTimeField()
    state = models.CharField(max_length=9, help_text="What it became.")
    claim = models.PositiveIntegerField(default=0)
    attempt = models.PositiveIntegerField(default=0)
    worker = models.CharField(max_length=64, blank=True, default="")
    text = models.TextField(blank=True, default="")

    class Meta:
        ordering: ClassVar[list[str]] = ["id"]

    def __str__(self) -> str:
        return f"{self.state} at {self.at}"


class Runner(models.Model):
    """A process that runs jobs.  One whose `beats` stand still for a lease is dead."""

    id = models.CharField(primary_key=True, max_length=32)
    host = models.CharField(max_length=255, blank=True, default="")
    pid = models.PositiveIntegerField(default=0)
    process = models.CharField(max_length=36, blank=True, default="")
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    beats = models.PositiveBigIntegerField(default=0)
    figures = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["id"]

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


class JobTally(models.Model):
    """Jobs of one type that entered (or, below zero, left) a state; folded into JobCount.

    Written beside every change in its transaction, so that nobody waits for a row that everybody
    changes.  `seconds` is how long those ran that finished.
    """

    id = models.BigAutoField(primary_key=True)
    type = models.ForeignKey(
        JobType, on_delete=models.CASCADE, db_constraint=False, db_index=False, related_name="+"
    )
    state = models.CharField(max_length=9)
    at = models.DateTimeField()
    entered = models.IntegerField(default=0)
    left = models.IntegerField(default=0)
    seconds = models.FloatField(default=0.0)

    def __str__(self) -> str:
        return f"{self.state} {self.entered - self.left:+d}"


class JobCount(models.Model):
    """How many jobs of a type are in a state, but for the tallies that are not yet folded in."""

    type = models.ForeignKey(
        JobType, on_delete=models.CASCADE, db_constraint=False, related_name="counts"
    )
    state = models.CharField(max_length=9)
    jobs = models.BigIntegerField(default=0)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["type", "state"], name="jobs_jobcount_once")
        ]

    def __str__(self) -> str:
        return f"{self.state}: {self.jobs}"


class JobMinute(models.Model):
    """What happened to the jobs of a type within a minute, and how many waited at its end."""

    type = models.ForeignKey(
        JobType, on_delete=models.CASCADE, db_constraint=False, related_name="minutes"
    )
    at = models.DateTimeField(db_index=True)
    submitted = models.BigIntegerField(default=0)
    started = models.BigIntegerField(default=0)
    succeeded = models.BigIntegerField(default=0)
    dead = models.BigIntegerField(default=0)
    cancelled = models.BigIntegerField(default=0)
    seconds = models.FloatField(default=0.0)
    queued = models.BigIntegerField(default=0)
    scheduled = models.BigIntegerField(default=0)
    running = models.BigIntegerField(default=0)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["type", "at"], name="jobs_jobminute_once")
        ]

    def __str__(self) -> str:
        return f"{self.at:%H:%M}"


class TypeGate(models.Model):
    """What a type's rate limit has left, for all runners; locked by whoever claims its jobs."""

    type = models.OneToOneField(
        JobType, on_delete=models.CASCADE, primary_key=True, db_constraint=False, related_name="+"
    )
    level = models.FloatField(default=0.0)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return str(self.type_id)
