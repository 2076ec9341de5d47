"""The pings of heartbeat targets, in the control database; written by the `heartbeats` sink."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from healthmon.targets.models import Target


class Heartbeat(models.Model):
    """What was last heard of a heartbeat target; `seq` is the record id of the newest ping."""

    target = models.OneToOneField(
        Target, primary_key=True, on_delete=models.CASCADE, related_name="heartbeat"
    )
    seq = models.BigIntegerField(default=0)
    last_ping_at = models.DateTimeField(null=True)
    last_start_at = models.DateTimeField(null=True)
    last_success_at = models.DateTimeField(null=True)
    last_fail_at = models.DateTimeField(null=True)
    last_exit_code = models.IntegerField(null=True)
    last_status = models.CharField(max_length=12, blank=True, default="")
    last_error = models.CharField(max_length=500, blank=True, default="")
    last_duration_ms = models.FloatField(null=True)
    updated_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"{self.target_id}: {self.last_status}"


class Ping(models.Model):
    """One ping, as it is listed beside its target; a bounded number a target is kept."""

    target = models.ForeignKey(Target, on_delete=models.CASCADE, related_name="pings")
    record_id = models.BigIntegerField()
    at = models.DateTimeField()
    kind = models.CharField(max_length=10)
    exit_code = models.IntegerField(null=True)
    remote = models.CharField(max_length=64, blank=True, default="")
    body = models.TextField(blank=True, default="")
    duration_ms = models.FloatField(null=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["target", "-id"], name="healthmon_ping_target")
        ]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["target", "record_id"], name="healthmon_ping_once")
        ]

    def __str__(self) -> str:
        return f"{self.target_id}: {self.kind}"
