"""The status of each target, every change of it, and incidents, in the control database.

State and flips are written by the `flips` sink alone, together, in one transaction; incidents are
opened and closed there too, and commented on in the admin.
"""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models

from healthmon.targets.models import SEVERITIES, Target
from healthmon.truth.machine import DEGRADED, DOWN, MAINTENANCE, NEW, PAUSED, UNKNOWN, UP

STATUSES = (NEW, UP, DEGRADED, DOWN, UNKNOWN, PAUSED, MAINTENANCE)
_CHOICES = [(status, status) for status in STATUSES]


class TargetState(models.Model):
    """What a target is now.  `seq` counts its flips; `epoch` is that of the lease last written."""

    target = models.OneToOneField(
        Target, primary_key=True, on_delete=models.CASCADE, related_name="state"
    )
    status = models.CharField(max_length=12, choices=_CHOICES, default=NEW, db_index=True)
    since = models.DateTimeField(null=True)
    seq = models.BigIntegerField(default=0)
    epoch = models.BigIntegerField(default=0)
    reason = models.CharField(max_length=500, blank=True, default="")
    flapping = models.BooleanField(default=False)
    cert_expires_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.target_id}: {self.status}"


class Flip(models.Model):
    """One change of a target's status, at its true time."""

    target = models.ForeignKey(Target, on_delete=models.CASCADE, related_name="flips")
    seq = models.BigIntegerField()
    from_status = models.CharField(max_length=12, choices=_CHOICES)
    to_status = models.CharField(max_length=12, choices=_CHOICES)
    at = models.DateTimeField()
    reason = models.CharField(max_length=500, blank=True, default="")
    flapping = models.BooleanField(default=False)
    epoch = models.BigIntegerField(default=0)
    checker = models.CharField(max_length=64, blank=True, default="")
    stored_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-at", "-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["target", "seq"], name="healthmon_flip_once")
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["target", "at"], name="healthmon_flip_target_at"),
            models.Index(fields=["at"], name="healthmon_flip_at"),
        ]

    def __str__(self) -> str:
        return f"{self.from_status} -> {self.to_status}"


class Incident(models.Model):
    """From a confirmed down to a confirmed recovery."""

    target = models.ForeignKey(Target, on_delete=models.CASCADE, related_name="incidents")
    opened_at = models.DateTimeField(db_index=True)
    closed_at = models.DateTimeField(null=True, blank=True)
    opened_seq = models.BigIntegerField()
    cause = models.CharField(max_length=500, blank=True, default="")
    severity = models.CharField(max_length=10, choices=SEVERITIES, default="critical")
    suppressed_by = models.ForeignKey(
        Target, null=True, blank=True, on_delete=models.SET_NULL, related_name="+",
        help_text="A parent that was down: this incident alerts nobody.",
    )  # fmt: skip
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    postmortem = models.TextField(blank=True, default="")
    public = models.BooleanField(default=True, help_text="Shown on status pages.")

    class Meta:
        ordering: ClassVar[list[str]] = ["-opened_at", "-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["target", "opened_seq"], name="healthmon_incident_once")
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["target"], name="healthmon_incident_open",
                condition=models.Q(closed_at__isnull=True),
            )
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.target}: {self.cause[:80]}"


class IncidentEntry(models.Model):
    """One line of an incident's timeline."""

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, related_name="entries")
    at = models.DateTimeField()
    kind = models.CharField(
        max_length=16,
        choices=[
            (kind, kind)
            for kind in ("opened", "flip", "acknowledged", "comment", "notified", "closed")
        ],
    )
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    text = models.TextField(blank=True, default="")
    public = models.BooleanField(default=False, help_text="A comment for status pages.")

    class Meta:
        ordering: ClassVar[list[str]] = ["at", "id"]
        verbose_name_plural = "incident entries"

    def __str__(self) -> str:
        return f"{self.kind}: {self.text[:80]}"


class BurnAlert(models.Model):
    """From the time that a target's error budget burns too fast until it no longer does."""

    target = models.ForeignKey(Target, on_delete=models.CASCADE, related_name="burn_alerts")
    pace = models.CharField(max_length=8, choices=[(pace, pace) for pace in ("fast", "slow")])
    fired_at = models.DateTimeField(db_index=True)
    cleared_at = models.DateTimeField(null=True, blank=True)
    burn = models.FloatField(help_text="How many times as fast as the objective allows.")

    class Meta:
        ordering: ClassVar[list[str]] = ["-fired_at", "-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["target", "pace"], name="healthmon_burn_once",
                condition=models.Q(cleared_at__isnull=True),
            )
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.target_id}: {self.pace}"
