"""Channels, the rules that say who is told of what, and what is to be told (control database).

A Notice is one event for one channel.  It is written together with the flip that it tells of,
waits for others of its rule to be told in one message, and stays as the memory of who was told.
"""

from __future__ import annotations

from typing import ClassVar

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from healthmon.targets.models import SEVERITIES, Tag, Target, TargetGroup
from healthmon.truth.models import Incident

DOWN, RECOVERED, DEGRADED, UNKNOWN = "down", "recovered", "degraded", "unknown"
FLAPPING, SLO, CERTIFICATE, REMINDER = "flapping", "slo", "certificate", "reminder"
# What a rule may name; `recovered` goes only to those who were told of what is over.
EVENTS = (DOWN, RECOVERED, DEGRADED, UNKNOWN, FLAPPING, SLO, CERTIFICATE, REMINDER)
TROUBLES = (DOWN, DEGRADED, UNKNOWN, FLAPPING)


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
    return [DOWN, RECOVERED]


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
        default=0,
        help_text="Seconds between reminders of an open incident that nobody has acknowledged. "
        "0: none.",
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


class Notice(models.Model):
    """One event for one channel.  `key` is the same whoever finds the event, however often.

    `held`: by quiet hours, by a parent that is down, or in the moment of grace after the parent
    is up again.  `is_open`: of a trouble that the channel knows of, or will, and that lasts.
    """

    WAITING, TOLD, DROPPED = "waiting", "told", "dropped"
    QUIET, PARENT, GRACE = "quiet", "parent", "grace"

    key = models.CharField(max_length=150, unique=True)
    rule = models.ForeignKey(
        NotificationRule, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="notices")
    target = models.ForeignKey(Target, on_delete=models.CASCADE, related_name="+")
    incident = models.ForeignKey(
        Incident, null=True, on_delete=models.CASCADE, related_name="notices"
    )
    event = models.CharField(max_length=12, choices=[(event, event) for event in EVENTS])
    at = models.DateTimeField(help_text="When it happened.")
    due_at = models.DateTimeField()
    state = models.CharField(
        max_length=8,
        choices=[(state, state) for state in (WAITING, TOLD, DROPPED)],
        default=WAITING,
    )
    held = models.CharField(max_length=8, blank=True, default="")
    why = models.CharField(max_length=200, blank=True, default="")
    is_open = models.BooleanField(default=False)
    reminders = models.PositiveIntegerField(default=0)
    details = models.JSONField(default=dict)
    message_key = models.CharField(max_length=200, blank=True, default="")
    told_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["due_at"], name="healthmon_notice_due",
                condition=models.Q(state="waiting"),
            ),
            models.Index(
                fields=["target"], name="healthmon_notice_open",
                condition=models.Q(is_open=True),
            ),
            models.Index(fields=["created_at"], name="healthmon_notice_created"),
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.event}: {self.target_id}"
