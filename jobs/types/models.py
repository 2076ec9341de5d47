"""Job types with their steps, the downstream services that steps call, and schedules, as rows."""

from __future__ import annotations

from typing import ClassVar

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models

from jobs.states import DEFAULT_PRIORITY, HIGHEST_PRIORITY

name_validator = RegexValidator(
    r"^[a-z0-9][a-z0-9\-_.]{0,62}\Z",
    "Use 1 to 63 lower-case letters, digits, '-', '_' or '.', the first a letter or digit.",
    code="name",
)

ALL, ANY, QUORUM, COLLECT = "all", "any", "quorum", "collect"
AGGREGATIONS = (
    (ALL, "all steps must succeed"),
    (ANY, "one step must succeed"),
    (QUORUM, "a number of steps must succeed"),
    (COLLECT, "take what there is: at least one step must succeed"),
)
CALL, HANDLER = "call", "handler"
RATIO, CONSECUTIVE, OFF = "ratio", "consecutive", "off"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")


class DownstreamService(models.Model):
    """A service that steps call: where it is, how it is called, and what it is spared.

    Limits are for all runners together: each gives out its part.  The breaker is each runner's own.
    """

    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    base_url = models.CharField("base URL", max_length=500)
    headers = models.JSONField(default=dict, blank=True)
    # Values are encrypted or `env:NAME`, see sinks.secrets; sent as headers, never shown again.
    secret_headers = models.JSONField(default=dict, blank=True)
    timeout_s = models.FloatField(default=10.0, validators=[MinValueValidator(0.05)])
    expected_status = models.CharField(
        max_length=100, default="200-299", help_text="Statuses and ranges, such as 200-299,304."
    )
    max_response_bytes = models.PositiveIntegerField(default=1024 * 1024)
    follow_redirects = models.BooleanField(default=False)
    verify_tls = models.BooleanField("verify TLS", default=True)
    rate_per_s = models.FloatField(null=True, blank=True, validators=[MinValueValidator(0.001)])
    burst = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    max_concurrent = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1)]
    )
    breaker_rule = models.CharField(
        max_length=12,
        default=RATIO,
        choices=[
            (RATIO, "a share of the calls of a window failed"),
            (CONSECUTIVE, "so many calls in a row failed"),
            (OFF, "never"),
        ],
    )
    breaker_ratio = models.FloatField(
        default=0.6, validators=[MinValueValidator(0.01), MaxValueValidator(1.0)]
    )
    breaker_min_calls = models.PositiveIntegerField(default=3, validators=[MinValueValidator(1)])
    breaker_window_s = models.FloatField(default=60.0, validators=[MinValueValidator(1.0)])
    breaker_consecutive = models.PositiveIntegerField(default=5, validators=[MinValueValidator(1)])
    breaker_open_s = models.FloatField(default=10.0, validators=[MinValueValidator(0.1)])
    breaker_probes = models.PositiveIntegerField(default=1, validators=[MinValueValidator(1)])
    notes = models.TextField(blank=True, default="")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]

    def __str__(self) -> str:
        return self.name


class JobType(models.Model):
    """What a job does: its steps, and the rules that it runs by."""

    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    description = models.TextField(blank=True, default="")
    enabled = models.BooleanField(
        default=True, help_text="A type that is not takes no jobs; those it has wait."
    )
    payload_schema = models.JSONField(
        default=dict, blank=True, help_text="JSON Schema (2020-12) of the payload; empty: any."
    )
    aggregation = models.CharField(max_length=8, choices=AGGREGATIONS, default=ALL)
    quorum = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    default_priority = models.PositiveSmallIntegerField(
        default=DEFAULT_PRIORITY, validators=[MaxValueValidator(HIGHEST_PRIORITY)]
    )
    max_attempts = models.PositiveIntegerField(
        default=8, validators=[MinValueValidator(1), MaxValueValidator(1000)]
    )
    backoff_base_s = models.FloatField(default=1.0, validators=[MinValueValidator(0.001)])
    backoff_cap_s = models.FloatField(default=60.0, validators=[MinValueValidator(0.001)])
    deadline_s = models.FloatField(
        default=3600.0,
        validators=[MinValueValidator(0.1)],
        help_text="Seconds from when a job may first run; then it is dead.",
    )
    max_concurrent = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1)]
    )
    rate_per_s = models.FloatField(null=True, blank=True, validators=[MinValueValidator(0.001)])
    burst = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    # Days; empty: the installation's.
    keep_succeeded_days = models.PositiveIntegerField(null=True, blank=True)
    keep_dead_days = models.PositiveIntegerField(null=True, blank=True)
    keep_cancelled_days = models.PositiveIntegerField(null=True, blank=True)
    webhook_url = models.CharField("webhook URL", max_length=500, blank=True, default="")
    # Encrypted or `env:NAME`; signs the webhook.
    webhook_secret = models.TextField(blank=True, default="")
    job_webhooks = models.BooleanField(
        default=True, help_text="A job may name a webhook of its own."
    )
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]

    def __str__(self) -> str:
        return self.name


class TypeStep(models.Model):
    """One step of a type.  Those of one stage run at the same time, stages one after another."""

    type = models.ForeignKey(JobType, on_delete=models.CASCADE, related_name="steps")
    stage = models.PositiveSmallIntegerField(default=1, validators=[MinValueValidator(1)])
    name = models.CharField(max_length=63, validators=[name_validator])
    kind = models.CharField(
        max_length=8,
        default=CALL,
        choices=[(CALL, "call a downstream service"), (HANDLER, "run a Python function")],
    )
    downstream = models.ForeignKey(
        DownstreamService, null=True, blank=True, on_delete=models.PROTECT, related_name="steps"
    )
    method = models.CharField(max_length=8, default="POST", choices=[(m, m) for m in METHODS])
    path = models.CharField(
        max_length=500,
        blank=True,
        default="",
        help_text="Below the base URL, such as /users/{payload.user_id}.",
    )
    headers = models.JSONField(default=dict, blank=True)
    body = models.JSONField(
        null=True, blank=True, help_text="JSON with {references}; empty: the payload itself."
    )
    expected_status = models.CharField(max_length=100, blank=True, default="")
    timeout_s = models.FloatField(null=True, blank=True, validators=[MinValueValidator(0.05)])
    handler = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        ordering: ClassVar[list[str]] = ["stage", "id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["type", "name"], name="jobs_typestep_once")
        ]

    def __str__(self) -> str:
        return self.name


class JobSchedule(models.Model):
    """Submits a job of a type by a cron expression, once for each time however many look."""

    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    type = models.ForeignKey(JobType, on_delete=models.CASCADE, related_name="schedules")
    cron = models.CharField(max_length=100)
    timezone = models.CharField(max_length=63, default="UTC")
    payload = models.JSONField(default=dict, blank=True)
    priority = models.PositiveSmallIntegerField(
        null=True, blank=True, validators=[MaxValueValidator(HIGHEST_PRIORITY)]
    )
    service = models.CharField(max_length=200, blank=True, default="")
    tenant = models.CharField(max_length=63, default="default")
    enabled = models.BooleanField(default=True)
    missed = models.CharField(
        max_length=4,
        default="once",
        choices=[("once", "run once, late"), ("skip", "wait for the next time")],
        help_text="What becomes of times at which no runner was there.",
    )
    overlap = models.BooleanField(
        default=True, help_text="Submit also while the last job of this schedule has not ended."
    )
    next_at = models.DateTimeField(null=True, blank=True, db_index=True)
    last_at = models.DateTimeField(null=True, blank=True)
    last_job = models.UUIDField(null=True, blank=True)
    last_error = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]

    def __str__(self) -> str:
        return self.name
