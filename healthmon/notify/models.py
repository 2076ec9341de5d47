"""Channels and the rules that say who is told of what, in the control database."""

from __future__ import annotations

from typing import ClassVar

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from healthmon.targets.models import SEVERITIES, Tag, TargetGroup


class Channel(models.Model):
    """One way of telling: a kind (webhook, email, slack) with its options; secrets encrypted."""

    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField(max_length=200, default="webhook")
    options = models.JSONField(default=dict, blank=True)
    secrets = models.JSONField(default=dict, blank=True, editable=False)
    enabled = models.BooleanField(default=True)
    rate_per_minute = models.PositiveIntegerField(
        default=30, validators=[MinValueValidator(1), MaxValueValidator(6000)]
    )
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]

    def __str__(self) -> str:
        return self.name


def _default_events() -> list[str]:
    return ["down", "recovered"]


class NotificationRule(models.Model):
    """Which events of which targets go to which channels, and when."""

    name = models.CharField(max_length=100, unique=True)
    enabled = models.BooleanField(default=True)
    events = models.JSONField(default=_default_events)
    min_severity = models.CharField(max_length=10, choices=SEVERITIES, default="info")
    tags = models.ManyToManyField(
        Tag, blank=True, help_text="Targets with any of these. Empty: all.", related_name="+"
    )
    groups = models.ManyToManyField(
        TargetGroup, blank=True, help_text="Targets of these. Empty: all.", related_name="+"
    )
    channels = models.ManyToManyField(Channel, related_name="rules")
    group_wait_s = models.FloatField(
        default=5.0, validators=[MinValueValidator(0), MaxValueValidator(600)],
        help_text="Seconds to wait for more of the same, to be told in one message.",
    )  # fmt: skip
    reminder_every_s = models.PositiveIntegerField(
        default=0, help_text="Seconds between reminders of an open incident. 0: none."
    )
    quiet_from = models.TimeField(null=True, blank=True)
    quiet_until = models.TimeField(null=True, blank=True)
    time_zone = models.CharField(max_length=64, default="UTC")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]
        verbose_name = "notification rule"

    def __str__(self) -> str:
        return self.name
