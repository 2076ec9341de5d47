"""Targets as rows, with what groups them and the windows in which they may be away.

What only one kind of probe knows is in `options`, checked by that kind's own Options; secret
options are in `secrets`, encrypted.  Every change that a checker must see moves `updated_at`, be it
a bulk update or a change of tags or parents: `touch` does that.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any, ClassVar

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction
from django.utils import timezone

from healthmon.targets.numbers import finite
from healthmon.targets.removal import TargetSet

SLOTS = 64

SEVERITIES = (("critical", "critical"), ("warning", "warning"), ("info", "info"))


def slot_of(target_id: int) -> int:
    """Which of the leased slots a target belongs to; never changes."""
    return zlib.crc32(b"%d" % target_id) % SLOTS


class Tag(models.Model):
    name = models.CharField(max_length=63, unique=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]

    def __str__(self) -> str:
        return self.name


class TargetGroup(models.Model):
    name = models.CharField(max_length=100, unique=True)
    order = models.SmallIntegerField(default=0, help_text="Lower stands first on status pages.")

    class Meta:
        ordering: ClassVar[list[str]] = ["order", "name"]
        verbose_name = "group"

    def __str__(self) -> str:
        return self.name


class Target(models.Model):
    """One thing that is watched."""

    name = models.CharField(max_length=200, unique=True)
    kind = models.CharField(max_length=200, default="http", help_text="How it is probed.")
    address = models.CharField(
        max_length=2000,
        blank=True,
        default="",
        help_text="A URL, a host with a port, or a name, as the kind of probe asks for.",
    )
    options = models.JSONField(default=dict, blank=True)
    secrets = models.JSONField(default=dict, blank=True, editable=False)

    interval_s = models.FloatField(
        "interval", default=30.0,
        validators=[finite, MinValueValidator(1), MaxValueValidator(86_400)],
        help_text="Seconds from one probe to the next.",
    )  # fmt: skip
    timeout_s = models.FloatField(
        "timeout", default=10.0,
        validators=[finite, MinValueValidator(0.1), MaxValueValidator(120)],
        help_text="Seconds that one probe may take in all.",
    )  # fmt: skip
    retry_interval_s = models.FloatField(
        "retry interval", default=5.0,
        validators=[finite, MinValueValidator(1), MaxValueValidator(3600)],
        help_text="Seconds between probes while a change of status is being confirmed.",
    )  # fmt: skip
    failure_threshold = models.PositiveSmallIntegerField(
        default=3, validators=[MinValueValidator(1), MaxValueValidator(20)],
        help_text="So many failures in a row make it down.",
    )  # fmt: skip
    success_threshold = models.PositiveSmallIntegerField(
        default=2, validators=[MinValueValidator(1), MaxValueValidator(20)],
        help_text="So many successes in a row make it up again.",
    )  # fmt: skip
    degraded_after_ms = models.FloatField(
        null=True, blank=True, validators=[finite, MinValueValidator(0.1)],
        help_text="Slower than this is degraded. Empty: never.",
    )  # fmt: skip

    paused = models.BooleanField(default=False)
    severity = models.CharField(max_length=10, choices=SEVERITIES, default="critical")
    tags = models.ManyToManyField(Tag, blank=True, related_name="targets")
    group = models.ForeignKey(
        TargetGroup, null=True, blank=True, on_delete=models.SET_NULL, related_name="targets"
    )
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    parents = models.ManyToManyField(
        "self", symmetrical=False, blank=True, related_name="children",
        help_text="While one of them is down, this target is watched but alerts nobody.",
    )  # fmt: skip
    notes = models.TextField(blank=True, default="", help_text="What to do when it is down.")
    service = models.CharField(
        max_length=200, blank=True, default="",
        help_text="The service whose stored logs belong to it. Empty: the target's name.",
    )  # fmt: skip
    slo_percent = models.FloatField(
        "objective", null=True, blank=True,
        validators=[finite, MinValueValidator(1), MaxValueValidator(99.9999)],
        help_text="The uptime in percent that is aimed at. Empty: none.",
    )  # fmt: skip
    slo_days = models.PositiveSmallIntegerField(
        "objective's window", default=30, validators=[MinValueValidator(1), MaxValueValidator(90)]
    )
    public = models.BooleanField(default=True, help_text="May be shown on status pages.")
    badge = models.BooleanField(default=False, help_text="Its badges can be read by anyone.")

    # Heartbeats: of the secret part of the ping address only its digest is kept.
    ping_digest = models.CharField(
        max_length=64, null=True, blank=True, unique=True, editable=False
    )
    ping_hint = models.CharField(max_length=8, blank=True, default="", editable=False)

    run_requested_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True, db_index=True)

    objects = TargetSet.as_manager()

    class Meta:
        ordering: ClassVar[list[str]] = ["name"]

    def __str__(self) -> str:
        return self.name

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic(using=kwargs.get("using")):
            type(self).objects.filter(pk=self.pk).hold()
            return super().delete(*args, **kwargs)

    @property
    def slot(self) -> int:
        return slot_of(self.pk)

    @property
    def log_service(self) -> str:
        """The service name under which this target's logs are stored."""
        return self.service or self.name


def touch(target_ids: Iterable[int]) -> None:
    """Let checkers see a change that no `save()` of the targets themselves has told them of."""
    Target.objects.filter(pk__in=list(target_ids)).update(updated_at=timezone.now())


class MaintenanceWindow(models.Model):
    """A time in which targets may be away: once, or again and again."""

    title = models.CharField(max_length=200)
    description = models.TextField(blank=True, default="")
    active = models.BooleanField(default=True)
    starts_at = models.DateTimeField(help_text="The first time, or the only one.")
    duration_s = models.PositiveIntegerField(
        "duration", default=3600, validators=[MinValueValidator(60), MaxValueValidator(31 * 86_400)]
    )
    cron = models.CharField(
        max_length=100, blank=True, default="",
        help_text="When it begins again: five cron fields. Empty: once.",
    )  # fmt: skip
    time_zone = models.CharField(max_length=64, default="UTC")
    ends_at = models.DateTimeField(
        null=True, blank=True, help_text="No recurrence begins after this. Empty: never."
    )
    all_targets = models.BooleanField(default=False)
    targets = models.ManyToManyField(Target, blank=True, related_name="maintenance_windows")
    tags = models.ManyToManyField(Tag, blank=True, related_name="maintenance_windows")
    groups = models.ManyToManyField(TargetGroup, blank=True, related_name="maintenance_windows")
    public = models.BooleanField(default=True, help_text="Announced on status pages.")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-starts_at"]

    def __str__(self) -> str:
        return self.title
