"""Processes, their workers' lives, their figures over time, what they are asked, and id numbers."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import ClassVar

from django.db import models

# Four missed heartbeats: one slow beat (a sink being swapped, a busy database) is not a death.
DEAD_AFTER = timedelta(seconds=20)
NODE_NUMBERS = 1024


class Process(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    role = models.CharField(max_length=32)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    version = models.CharField(max_length=64, blank=True, default="")
    log_id = models.CharField(max_length=64, blank=True, default="")
    started_at = models.DateTimeField()
    last_seen_at = models.DateTimeField(db_index=True)
    stopped_at = models.DateTimeField(null=True, blank=True, db_index=True)
    exit_reason = models.CharField(max_length=200, blank=True, default="")
    stats = models.JSONField(default=dict, blank=True)
    ledger = models.JSONField(default=list, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-started_at"]
        verbose_name_plural = "processes"

    def __str__(self) -> str:
        return f"{self.role} {self.host}:{self.pid}"

    def is_alive(self, now: datetime) -> bool:
        return self.stopped_at is None and now - self.last_seen_at < DEAD_AFTER


class WorkerRun(models.Model):
    """One worker thread's life: from when to when, and what it did."""

    process = models.ForeignKey(Process, on_delete=models.CASCADE, related_name="worker_runs")
    pipeline = models.CharField(max_length=200)
    worker = models.CharField(max_length=200)
    started_at = models.DateTimeField(db_index=True)
    ended_at = models.DateTimeField(null=True, blank=True, db_index=True)
    records = models.BigIntegerField(default=0)
    batches = models.BigIntegerField(default=0)
    failures = models.BigIntegerField(default=0)

    class Meta:
        ordering: ClassVar[list[str]] = ["-started_at", "-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["process", "pipeline", "worker", "started_at"],
                name="control_workerrun_life",
            )
        ]

    def __str__(self) -> str:
        return f"{self.pipeline} {self.worker}"


class PipelineSample(models.Model):
    """A pipeline over one interval: counts are what happened in it, gauges its end."""

    process = models.ForeignKey(Process, on_delete=models.CASCADE, related_name="samples")
    key = models.CharField(max_length=200)
    name = models.CharField(max_length=200)
    at = models.DateTimeField(db_index=True)
    interval_s = models.FloatField()
    accepted = models.BigIntegerField(default=0)
    stored = models.BigIntegerField(default=0)
    refused = models.BigIntegerField(default=0)
    dropped = models.BigIntegerField(default=0)
    held_records = models.BigIntegerField(default=0)
    capacity_records = models.BigIntegerField(default=0)
    held_bytes = models.BigIntegerField(default=0)
    # The fullest it was in the interval, by records or by bytes, as a share of the capacity.
    peak_fill = models.FloatField(default=0.0)
    workers = models.IntegerField(default=0)
    batches = models.BigIntegerField(default=0)
    # The count at which a batch closes, and how many may be with the sink at once.
    batch_limit = models.BigIntegerField(default=0)
    write_limit = models.IntegerField(default=0)
    scaled_up = models.IntegerField(default=0)
    scaled_down = models.IntegerField(default=0)
    shed = models.BigIntegerField(default=0)
    write_p50_s = models.FloatField(null=True)
    write_p95_s = models.FloatField(null=True)
    write_p99_s = models.FloatField(null=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["at", "id"]

    def __str__(self) -> str:
        return f"{self.name} at {self.at:%H:%M:%S}"


class ProcessRequest(models.Model):
    """Something a live process is asked to do, and what came of it."""

    process = models.ForeignKey(Process, on_delete=models.CASCADE, related_name="requests")
    kind = models.CharField(max_length=64)
    args = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    claimed_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    result = models.JSONField(null=True, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-created_at", "-id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["process"],
                name="control_request_open",
                condition=models.Q(claimed_at__isnull=True),
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} for {self.process_id}"


class IdNode(models.Model):
    """A record-id node number: `holder` makes ids with it for times before `leased_until`."""

    number = models.PositiveSmallIntegerField(primary_key=True)
    holder = models.CharField(max_length=64, db_index=True)
    leased_until = models.DateTimeField()

    class Meta:
        ordering: ClassVar[list[str]] = ["number"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                condition=models.Q(number__lt=NODE_NUMBERS), name="control_idnode_number"
            )
        ]

    def __str__(self) -> str:
        return f"{self.number} for {self.holder}"
